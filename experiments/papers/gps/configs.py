"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import ModelConfig
from experiments.papers.gps.fields import (
    CorruptedConfig,
    CorruptionConfig,
    DrawnConfig,
    PolicyConfig,
    PoolConfig,
    SearchConfig,
    SpeedConfig,
    TransferConfig,
)
from experiments.shared.ensembling.configs import ImagesConfig, ViewsConfig
from experiments.suite.experiment import Experiment, Preset

RECIPE = (
    "views.counts", "calibration.folds", "calibration.repeats", "pool.counts", "search.splits",
    "search.length", "search.grid", "search.grid_views", "search.held_out", "transfer.policies",
    "transfer.weights", "transfer.name", "transfer.empty",
)  # fmt: skip
_NETWORKS = (
    "Networks trained by others with crops and flips; the paper trains its own, of other "
    "architectures, also with RandAugment.",
)
_FIXES = (
    "The candidate without augmentation is evaluated as the search scores it, without a crop; the "
    "measures 'released' evaluate it with a crop, as the authors' code does.",
    "Search and evaluation use halves of the test set, as the paper does on ImageNet; on CIFAR-10 "
    "it searches on held-out training images, which these networks were trained on "
    "(--search.images held-out).",
)
_SMOKE_IMAGES = ImagesConfig(test_limit=60, train_limit=60, eval_batch_size=20)


def _search(layers: int) -> Experiment:
    """Defines the search for a policy of one ResNet for CIFAR-10."""
    config = PolicyConfig(model=ModelConfig(name=f"resnet{layers}_cifar10"))
    smaller_grid = (0.0, 5.0, 10.0, 20.0, 30.0, 45.0)
    day = dataclasses.replace(
        config,
        pool=PoolConfig(counts=(90, 90, 20)),
        search=SearchConfig(length=50, grid=smaller_grid, grid_views=5),
        views=ViewsConfig(counts=(1, 5, 10, 20, 50)),
    )
    quick = dataclasses.replace(
        day,
        data=ImagesConfig(test_limit=2000),
        pool=PoolConfig(counts=(25, 25, 10)),
        search=SearchConfig(length=20, grid=smaller_grid, grid_views=5),
        views=ViewsConfig(counts=(1, 5, 10, 20)),
    )
    smoke = dataclasses.replace(
        day,
        weights="random",
        data=_SMOKE_IMAGES,
        model=ModelConfig(name="resnet20_cifar10"),
        pool=PoolConfig(counts=(1, 1, 1)),
        search=SearchConfig(length=2, splits=2, grid=(0.0, 10.0), grid_views=1),
        views=ViewsConfig(counts=(1, 2)),
        transfer=TransferConfig(weights="random", name="resnet20_cifar10"),
    )
    return Experiment(
        id=f"gps.cifar10.resnet{layers}",
        title=f"greedy policy search for a trained ResNet-{layers} on CIFAR-10",
        row=f"cifar10.resnet{layers}",
        presets={
            "smoke": Preset(smoke), "quick": Preset(quick), "day": Preset(day),
            "paper": Preset(config),
        },
        runner="experiments.papers.gps.experiment:run",
        data="cifar10, and trained weights of the network",
        deviations=(*_NETWORKS, *_FIXES),
        recipe=RECIPE,
    )  # fmt: skip


def _corruptions() -> Experiment:
    """Defines the evaluation of a policy on corrupted images."""
    config = CorruptedConfig()
    day = dataclasses.replace(
        config,
        corruption=CorruptionConfig(
            kinds=("gaussian_noise", "motion_blur", "jpeg_compression"), severities=(2, 4)
        ),
        views=ViewsConfig(counts=(5, 10, 20)),
    )
    quick = dataclasses.replace(day, data=ImagesConfig(test_limit=2000))
    smoke = dataclasses.replace(
        day,
        weights="random",
        policy="random",
        data=_SMOKE_IMAGES,
        corruption=CorruptionConfig(kinds=("contrast",), severities=(1, 5)),
        views=ViewsConfig(counts=(1, 2)),
    )
    return Experiment(
        id="gps.corruptions.resnet20",
        title="greedy policy search under corruptions, trained ResNet-20 on CIFAR-10",
        row="corruptions.resnet20",
        presets={
            "smoke": Preset(smoke), "quick": Preset(quick), "day": Preset(day),
            "paper": Preset(config),
        },
        runner="experiments.papers.gps.corrupted:run",
        data="cifar10, trained weights of the network, and a policy",
        deviations=(
            *_NETWORKS,
            "Corruptions are generated where the official files are absent; frost has generated "
            "textures, so its numbers are not comparable.",
        ),
        recipe=("views.counts", "calibration.folds", "calibration.repeats", "corruption.seed"),
    )  # fmt: skip


def _speed() -> Experiment:
    """Defines the time of the search at the paper's size."""
    return Experiment(
        id="gps.search.time",
        title="time of the greedy search at the paper's size, predictions drawn",
        row="search.time",
        presets={
            "smoke": Preset(SpeedConfig(DrawnConfig(candidates=5, objects=40, length=3))),
            "quick": Preset(SpeedConfig()),
            "paper": Preset(SpeedConfig()),
        },
        runner="experiments.papers.gps.speed:run",
        data="none",
        deviations=("Predictions are drawn at random, so that the time is of the search alone.",),
    )


EXPERIMENTS = (_search(20), _search(32), _corruptions(), _speed())
