"""Shared parts of the experiments on CIFAR: data sets, schedules and reduced runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import DataConfig, OptimiserConfig, ScheduleConfig
from experiments.papers.zoo.configs.presets import IMAGES, Changes, presets
from experiments.suite.experiment import Bound, Experiment

STEPS = "1200 steps"
"""Length of the reduced trainings, the same for all sides of a comparison."""
_AUGMENTED = DataConfig(
    batch_size=128, eval_batch_size=500, standardise=True, crop_padding=4, flip=True
)
TITLES = {
    "c10": "CIFAR-10",
    "c10-plus": "CIFAR-10, augmented",
    "c100": "CIFAR-100",
    "c100-plus": "CIFAR-100, augmented",
}
"""Data as ids name it -> title."""
NESTEROV = OptimiserConfig(
    name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
)
"""Optimiser of the papers of stochastic depth and of DenseNet."""
DROPS = ("50%", "75%")
"""Times at which most of the papers divide the rate by 10."""


def cifar(data: str, **changes: Any) -> DataConfig:
    """Returns the data of an experiment, standardised per channel.

    Args:
        data: key of `TITLES`; "plus" has random crops of images padded by 4, and flips.
        **changes: other values of the group.
    """
    plain = {} if is_augmented(data) else {"crop_padding": 0, "flip": False}
    name = "cifar100" if data.startswith("c100") else "cifar10"
    return dataclasses.replace(_AUGMENTED, name=name, **{**plain, **changes})


def is_augmented(data: str) -> bool:
    """Returns whether training images are cropped and flipped at random."""
    return data.endswith("plus")


def steps(length: str, boundaries: tuple[str, ...] = DROPS, factor: float = 0.1) -> ScheduleConfig:
    """Returns a schedule that multiplies the rate by a factor at fixed times."""
    return ScheduleConfig(length=length, kind="step", boundaries=boundaries, factor=factor)


def experiment(
    row: str,
    title: str,
    config: Any,
    *,
    quick: Changes,
    smoke: Changes,
    measures: tuple[str, ...] = ("error",),
    deviations: tuple[str, ...] = (),
    bounds: tuple[float, float] = (3, 50),
    recipe: tuple[str, ...] = (),
) -> Experiment:
    """Defines a training on CIFAR.

    Args:
        row: table and row.
        title: title of the network.
        config: configuration of the preset paper.
        quick: changes of the preset quick besides its length.
        smoke: changes of the preset smoke besides its length and its images.
        measures: measures of the paper's row.
        deviations: deviations from the paper.
        bounds: plausible test errors of the preset paper, %.
        recipe: values of own groups that belong to the recipe.
    """
    length = {"schedule": {"length": STEPS}}
    data = next(name for name in sorted(TITLES, key=len, reverse=True) if row.endswith(name))
    return Experiment(
        id=f"zoo.{row}",
        title=f"{title} on {TITLES[data]}",
        row=row,
        presets=presets(
            config, quick={**length, **quick}, smoke=smoke, bounds=(Bound("error", *bounds),)
        ),
        runner=IMAGES,
        data="cifar100" if data.startswith("c100") else "cifar10",
        deviations=deviations,
        measures=measures,
        recipe=recipe,
    )
