"""Experiments of the methods table: ensembles of one small network, and their presets."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.papers.tta.methods.configs import (
    CycleConfig,
    CyclicalLangevinConfig,
    DeepEnsembleConfig,
    EnsembleConfig,
    FastGeometricConfig,
    LaplaceConfig,
    LaplaceMethodConfig,
    LengthConfig,
    MethodConfig,
    NetworkConfig,
    NoiseConfig,
    SingleMethodConfig,
    SnapshotConfig,
    SwagConfig,
    SwagMethodConfig,
    VariationalConfig,
    VariationalMethodConfig,
)
from experiments.suite.experiment import Experiment, Preset

RUNNER = "experiments.papers.tta.methods.runner:run"
PREFIX = "tta.methods."

_BASE = (
    "A ResNet of 8 layers with the recipe of the paper's PreResNet110; the paper's networks have "
    "16 to 164 layers.",
    "Weight decay acts on kernels only, not on biases and batch normalisation.",
)
_RESTART = "Momentum starts at 0 when the method starts from the trained network."
_REDUCED = (
    "Presets smoke, quick and day shorten training and cycles and have fewer samples; members of "
    "them are far from the paper's."
)
_SMOKE, _QUICK, _DAY = "2 steps", "4 epochs", "4 epochs"


def _presets(config: MethodConfig, *, smoke: Any, quick: Any, day: Any) -> dict[str, Preset]:
    """Returns the presets; each of the others is a mapping of the groups that differ in it."""

    def reduced(
        groups: Any, length: str, counts: tuple[int, ...], limits: tuple[int, int], batch: int = 128
    ) -> MethodConfig:
        values: dict[str, Any] = {
            "data": dataclasses.replace(
                config.data, batch_size=batch, train_limit=limits[0], test_limit=limits[1]
            ),
            "schedule": LengthConfig(length=length),
            "views": dataclasses.replace(config.views, counts=counts),
        }
        return dataclasses.replace(config, **(values | groups))

    return {
        "smoke": Preset(reduced(smoke, _SMOKE, (1, 2), (40, 24), batch=16)),
        "quick": Preset(reduced(quick, _QUICK, (1, 2, 3, 5), (5000, 2000))),
        "day": Preset(reduced(day, _DAY, (1, 2, 3, 5, 10), (0, 0))),
        "paper": Preset(config),
    }


def _method(
    name: str, title: str, config: MethodConfig, *, deviations: tuple[str, ...] = (),
    smoke: Any = None, quick: Any = None, day: Any = None, recipe: tuple[str, ...] = (),
) -> Experiment:  # fmt: skip
    """Defines one method.

    Args:
        name: last part of the id.
        title: name of the method.
        config: configuration of the preset paper.
        deviations: deviations from the paper besides those of every method.
        smoke: groups that differ in the preset smoke, besides lengths, limits and counts.
        quick: groups that differ in the preset quick.
        day: groups that differ in the preset day.
        recipe: further values that belong to the recipe.
    """
    return Experiment(
        id=PREFIX + name,
        title=f"{title} of ResNet-8 on CIFAR-10",
        row=f"methods.{name}",
        presets=_presets(config, smoke=smoke or {}, quick=quick or {}, day=day or {}),
        runner=RUNNER,
        data="cifar10",
        deviations=(*_BASE, *deviations, _REDUCED),
        recipe=(
            "views.counts", "calibration.folds", "calibration.repeats", "network.dropout_rate",
            "weights", *recipe,
        ),
    )  # fmt: skip


def _noise(every: str, samples: int = 3) -> dict[str, Any]:
    return {"noise": NoiseConfig(samples=samples, every=every)}


def _cycle(length: str) -> dict[str, Any]:
    return {"cycle": CycleConfig(length=length)}


def _swag(length: str, every: str, images: int) -> dict[str, Any]:
    return {"swag": SwagConfig(length=length, every=every, statistics_images=images)}


def _variational(length: str) -> dict[str, Any]:
    return {"variational": VariationalConfig(length=length)}


def _laplace(**values: Any) -> dict[str, Any]:
    return {"laplace": LaplaceConfig(**values)}


METHODS = (
    _method("single", "single network", SingleMethodConfig()),
    _method(
        "de", "deep ensemble", DeepEnsembleConfig(), recipe=("ensemble.groupings",),
        smoke={"ensemble": EnsembleConfig(groupings=2)},
    ),
    _method(
        "sse", "snapshot ensemble (SSE)", SnapshotConfig(),
        quick={"schedule": LengthConfig(length="2 epochs")},
        day={"schedule": LengthConfig(length="3 epochs")},
    ),
    _method(
        "csgld", "cyclical SGLD (cSGLD)", CyclicalLangevinConfig(),
        deviations=("Momentum is 0; our source for the recipe does not state it.",),
        recipe=("noise.every", "noise.samples"),
        smoke=_noise("1 steps", samples=2),
        quick=_noise("20 steps"),
        day={"schedule": LengthConfig(length="6 epochs"), **_noise("195 steps")},
    ),
    _method(
        "fge", "fast geometric ensemble (FGE)", FastGeometricConfig(), deviations=(_RESTART,),
        recipe=("cycle.length",),
        smoke=_cycle("2 steps"), quick=_cycle("1 epochs"), day=_cycle("1 epochs"),
    ),
    _method(
        "swag", "SWAG", SwagMethodConfig(),
        deviations=(
            "Batch statistics of a sample are means over training images without augmentation.",
            _RESTART,
        ),
        recipe=("swag.length", "swag.every", "swag.statistics_images"),
        smoke=_swag("3 steps", "1 steps", 32),
        quick=_swag("4 epochs", "8 steps", 1024),
        day=_swag("6 epochs", "117 steps", 12800),
    ),
    _method(
        "vi", "mean-field variational inference (VI)", VariationalMethodConfig(),
        deviations=(
            "The learning rate of the means is our choice; our source for the recipe does not "
            "state it.",
            _RESTART,
        ),
        recipe=("variational.length",),
        smoke=_variational("2 steps"), quick=_variational("2 epochs"), day=_variational("4 epochs"),
    ),
    _method(
        "dropout", "Monte-Carlo dropout",
        SingleMethodConfig(
            network=NetworkConfig(dropout_rate=0.3), schedule=LengthConfig(length="400 epochs")
        ),
        deviations=("Dropout stands between the convolutions of each residual unit, as in WRN.",),
        quick={"network": NetworkConfig(dropout_rate=0.1)},
        day={"network": NetworkConfig(dropout_rate=0.1)},
    ),
    _method(
        "kfac-laplace", "K-FAC-Laplace", LaplaceMethodConfig(),
        deviations=(
            "The scale of the noise is chosen without augmentation, and serves for both columns.",
        ),
        recipe=("laplace.images", "laplace.held_out", "laplace.samples", "laplace.scales"),
        smoke=_laplace(images=16, held_out=8, scales=(0.1, 1.0), samples=2),
        quick=_laplace(images=1000, held_out=500, samples=3),
        day=_laplace(images=5000, held_out=2000, samples=5),
    ),
)  # fmt: skip
