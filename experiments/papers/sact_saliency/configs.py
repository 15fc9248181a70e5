"""Experiments of the paper's Table 2, of photographs with fixations, and their presets."""

from __future__ import annotations

import dataclasses

from experiments.papers.sact_saliency.fields import (
    CentreConfig,
    FixationsConfig,
    HalvesConfig,
    NetworkConfig,
    PicturesConfig,
    SaliencyConfig,
    SmoothingConfig,
)
from experiments.suite.experiment import Experiment, Preset

IDS = "sact.saliency"
RUNNER = "experiments.papers.sact_saliency.experiment:run"
RECIPE = (
    "fixations.limit", "fixations.others", "pictures.batch_size", "halves.repeats",
    "smoothing.sigmas", "smoothing.centre_weights",
)  # fmt: skip
_CENTRE = (
    "The standard deviations of the centre bias are a fourth of the height and of the width; the "
    "paper does not print them.",
)
_PUBLIC = (
    "The first halves of the 20 categories of the public training part select the parameters, the "
    "second halves report.",
)
_WEIGHTS = (
    "The network is the one that the run is given; the authors' weights are TensorFlow's and have "
    "not been converted.",
)
_CAT2000 = FixationsConfig(name="cat2000")
_FIRST = HalvesConfig(rule="first")


def _presets(config: CentreConfig, *, quick: int) -> dict[str, Preset]:
    """Returns the presets; quick measures the first pictures of each category.

    Args:
        config: configuration of the preset paper.
        quick: number of pictures of the preset quick.
    """
    smoke = dataclasses.replace(
        config,
        fixations=FixationsConfig(name="generated", limit=4, others=2),
        halves=dataclasses.replace(config.halves, repeats=2),
        smoothing=SmoothingConfig(sigmas=(0.0, 0.1), centre_weights=(0.0, 1.0)),
    )
    if isinstance(smoke, SaliencyConfig):
        small = dataclasses.replace(smoke.pictures, longer_side=32)
        network = NetworkConfig(source="random", name="resnetv1_20_sact_cifar10")
        smoke = dataclasses.replace(smoke, network=network, pictures=small)
    limited = dataclasses.replace(config.fixations, limit=quick)
    return {
        "smoke": Preset(smoke),
        "quick": Preset(dataclasses.replace(config, fixations=limited)),
        "paper": Preset(config),
    }


def _table2(row: str, title: str, config: CentreConfig, *, data: str, quick: int) -> Experiment:
    """Defines a row of Table 2."""
    deviations = (*_CENTRE, *_PUBLIC) if isinstance(config, SaliencyConfig) else _PUBLIC
    if isinstance(config, SaliencyConfig):
        deviations += _WEIGHTS
    return Experiment(
        id=f"{IDS}.cat2000-{row}",
        title=title,
        row=f"cat2000.{row}",
        presets=_presets(config, quick=quick),
        runner=RUNNER,
        data=data,
        deviations=deviations,
        measures=("auc_judd",),
        # The centre baseline has no network that takes batches.
        recipe=tuple(n for n in RECIPE if n != "pictures.batch_size" or row != "centre"),
    )


_MIT1003 = SaliencyConfig(
    fixations=FixationsConfig(name="mit1003"),
    network=NetworkConfig(name="resnet32_sact_cifar10"),
    pictures=PicturesConfig(longer_side=192, multiple=16),
)

EXPERIMENTS = (
    _table2(
        "centre",
        "centre baseline on CAT2000",
        CentreConfig(_CAT2000, halves=_FIRST),
        data="cat2000",
        quick=40,
    ),
    _table2(
        "imagenet-tau5e-3",
        "ponder maps of SACT on ImageNet, tau 0.005, as saliency on CAT2000",
        SaliencyConfig(_CAT2000, halves=_FIRST),
        data="cat2000, and a run of sact.imagenet.r101-sact-tau5e-3",
        quick=40,
    ),
    _table2(
        "coco-tau5e-3",
        "ponder maps of SACT on COCO, tau 0.005, as saliency on CAT2000",
        SaliencyConfig(_CAT2000, halves=_FIRST, pictures=PicturesConfig(longer_side=640)),
        data="cat2000, and a network trained on COCO",
        quick=40,
    ),
    Experiment(
        id=f"{IDS}.mit1003",
        title="ponder maps of a network of yours as saliency on MIT1003",
        row="mit1003",
        presets=_presets(_MIT1003, quick=40),
        runner=RUNNER,
        data="mit1003, and a run of a network of adaptive depth",
        deviations=(
            *_CENTRE,
            "The paper has no measurement on MIT1003.",
            "Where only blurred maps are published, single fixations are drawn from them "
            "(--fixations.rule).",
        ),
        recipe=(*RECIPE, "pictures.longer_side", "pictures.multiple"),
    ),
)
