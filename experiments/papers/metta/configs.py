"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import ModelConfig
from experiments.papers.metta.fields import (
    CropsConfig,
    EmbeddingConfig,
    HeadConfig,
    InterpolationConfig,
    PhotographsConfig,
    PhotographViewsConfig,
    ProbeConfig,
    ProbedConfig,
)
from experiments.suite.experiment import Experiment, Preset

_PROBED = (
    "Supervised features of a small network on another data set of small images; the paper "
    "evaluates ImageNet features on ImageNet.",
    "Views are crops of images padded with black pixels; the paper's are resized crops "
    "(--views.smallest-area).",
    "Probes are trained on embeddings of the images themselves, of one random view of each, or on "
    "mean embeddings; the heads of the paper's networks are trained on random crops.",
    "Neighbours and retrieval are not in the paper.",
)
_PHOTOGRAPHS = ("Photographs are resized bilinearly; SimCLRv2 resizes bicubically.",)
_SIMCLR = (
    *_PHOTOGRAPHS,
    "The network is torchvision's ResNet-50, with the same strides; its first max-pooling pads "
    "both sides by one pixel, that of the released SimCLRv2 weights only the right and lower side.",
)
_TOP1 = ("top1.centre", "top1.10", "top1.32", "gain.10", "gain.32")
_RECIPE = ("views.counts", "calibration.folds", "calibration.repeats")


def _probed_presets() -> dict[str, Preset]:
    config = ProbedConfig()
    data = config.data
    quick = dataclasses.replace(
        config,
        data=dataclasses.replace(data, train_limit=5000, test_limit=2000),
        views=CropsConfig(counts=(1, 2, 5, 10)),
    )
    smoke = dataclasses.replace(
        config,
        weights="random",
        data=dataclasses.replace(data, train_limit=60, test_limit=40, eval_batch_size=20),
        model=ModelConfig(name="resnet20_cifar10"),
        views=CropsConfig(counts=(1, 2)),
        embedding=EmbeddingConfig(views=2),
        probe=ProbeConfig(penalties=(1e-3,), iterations=20),
        interpolation=InterpolationConfig(points=3),
    )
    return {"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config, seeds=3)}


def _head_presets(config: HeadConfig) -> dict[str, Preset]:
    data = config.data
    quick = dataclasses.replace(
        config,
        data=dataclasses.replace(data, test_limit=2000),
        views=PhotographViewsConfig(counts=(1, 2, 5, 10)),
    )
    smoke = dataclasses.replace(
        config,
        weights="random",
        data=dataclasses.replace(data, train_limit=8, test_limit=2, eval_batch_size=2),
        model=ModelConfig(name="resnet18"),
    )
    return {"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config)}


EXPERIMENTS = (
    Experiment(
        id="metta.cifar100.resnet32",
        title="mean embeddings of a CIFAR-10 ResNet-32 on CIFAR-100: linear probe, neighbours",
        row="cifar100.resnet32",
        presets=_probed_presets(),
        runner="experiments.papers.metta.experiment:run",
        data="cifar100, and weights of the network trained on cifar10",
        deviations=_PROBED,
        recipe=(
            *_RECIPE, "embedding.train", "probe.penalties", "probe.held_out", "probe.iterations",
            "interpolation.points",
        ),
    ),
    Experiment(
        id="metta.imagenet.simclr-resnet50-1x",
        title="mean embeddings of SimCLRv2 ResNet-50 on ImageNet, linear head as released",
        row="imagenet.simclr-resnet50-1x",
        presets=_head_presets(HeadConfig(photographs=PhotographsConfig(pixels="unit"))),
        runner="experiments.papers.metta.photographs:run",
        data="imagenet, and SimCLRv2 weights with their linear head under torchvision's names",
        deviations=_SIMCLR,
        measures=_TOP1,
        recipe=(*_RECIPE, "photographs.threads"),
    ),
    Experiment(
        id="metta.imagenet.supervised-resnet50-1x",
        title="mean embeddings of supervised ResNet-50 on ImageNet, its own classifier",
        row="imagenet.supervised-resnet50-1x",
        presets=_head_presets(HeadConfig()),
        runner="experiments.papers.metta.photographs:run",
        data="imagenet, and weights of resnet50",
        deviations=(
            *_PHOTOGRAPHS,
            "Any weights of the zoo's ResNet-50 serve; the paper's are those published with "
            "SimCLRv2.",
        ),
        measures=_TOP1,
        recipe=(*_RECIPE, "photographs.threads"),
    ),
)  # fmt: skip
