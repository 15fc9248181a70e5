"""Configurations of the paper's experiments and their groups of fields."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.data.corruptions import CORRUPTIONS
from adaptive_nets.training.config import ModelConfig, require
from adaptive_nets.training.ranges import Count, FlagGroup, Range, Size
from experiments.shared.ensembling.configs import (
    CalibrationConfig,
    ImagesConfig,
    ViewsConfig,
    Weights,
)
from experiments.suite.run_inputs import RunInputField

Magnitudes = Annotated[tuple[float, ...], Range(0, 100, least=1)]


@dataclasses.dataclass(frozen=True)
class PoolConfig(FlagGroup, flags="pool"):
    """Random sub-policies that the search chooses from."""

    operations: Annotated[int, Range(1, 16)] = 3
    """Number of operations of a sub-policy."""
    magnitudes: Magnitudes = (45.0, 20.0, 0.0)
    """Largest magnitudes M of the operations, one for each part of the pool."""
    counts: Annotated[tuple[int, ...], Range(0, 100000, least=1)] = (500, 500, 100)
    """Number of sub-policies of each part."""
    unchanged: bool = True
    """Include the images themselves as a candidate."""

    def __post_init__(self):
        super().__post_init__()
        require(
            len(self.counts) == len(self.magnitudes),
            "pool.counts",
            self.counts,
            f"{len(self.magnitudes)} numbers, as many as --pool.magnitudes has",
        )
        require(
            sum(self.counts) + self.unchanged > 0,
            "pool.counts",
            self.counts,
            "at least one candidate",
        )


@dataclasses.dataclass(frozen=True)
class SearchConfig(FlagGroup, flags="search"):
    """Greedy search for a policy."""

    length: Annotated[int, Range(1, 10000)] = 100
    """Number of sub-policies of the policy."""
    criterion: Literal["cll", "ll", "accuracy"] = "cll"
    """Quantity to maximise: calibrated log-likelihood, log-likelihood, or accuracy."""
    images: Literal["halves", "held-out"] = "halves"
    """Images of the search: a half of the test set, the other half is evaluated; or images of the
    training set, which the network should not have been trained on."""
    splits: Annotated[int, Range(1, 100)] = 3
    """Number of divisions of the test set into halves, by class."""
    held_out: Annotated[int, Range(1, 10**7)] = 5000
    """Number of training images of the search, the same number of every class."""
    grid: Magnitudes = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0)
    """Magnitudes M among which the policy of one magnitude, M*, is chosen."""
    grid_views: Count = 10
    """Number of views by which M* is chosen."""


@dataclasses.dataclass(frozen=True)
class TransferConfig(FlagGroup, flags="transfer"):
    """Other policies of this network, and another network of the policies that are found."""

    policies: Annotated[tuple[str, ...], RunInputField()] = ()
    """Policy files that are evaluated on the same images."""
    empty: Literal["unchanged", "crop"] = "unchanged"
    """View of an empty sub-policy in a released file: that of its search, or of its evaluation."""
    weights: Annotated[str, RunInputField(random=True)] = ""
    """Another trained network, on which the found policies are evaluated too; empty for none."""
    name: str = "resnet32_cifar10"
    """Name of that network, see 'adaptive-nets models'."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Search for a policy of a trained network, and its evaluation."""

    weights: Weights = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    data: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnet32_cifar10")
    )
    pool: PoolConfig = PoolConfig()
    search: SearchConfig = SearchConfig()
    views: ViewsConfig = dataclasses.field(
        default_factory=lambda: ViewsConfig(counts=(1, 5, 10, 20, 50, 100))
    )
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)
    transfer: TransferConfig = TransferConfig()


@dataclasses.dataclass(frozen=True)
class CorruptionConfig(FlagGroup, flags="corruption"):
    """Corruptions of the test images."""

    kinds: tuple[str, ...] = CORRUPTIONS
    """Kinds of corruptions."""
    severities: Annotated[tuple[int, ...], Range(1, 5, least=1)] = (1, 2, 3, 4, 5)
    """Severities, 1 to 5."""
    seed: Size = 0
    """Seed of corruptions that are generated; files of the data root take precedence."""

    def __post_init__(self):
        super().__post_init__()
        unknown = [kind for kind in self.kinds if kind not in CORRUPTIONS]
        require(
            bool(self.kinds) and not unknown and len(set(self.kinds)) == len(self.kinds),
            "corruption.kinds",
            self.kinds,
            f"distinct kinds among {', '.join(CORRUPTIONS)}",
        )


@dataclasses.dataclass(frozen=True)
class CorruptedConfig:
    """Evaluation of a policy on corrupted images."""

    weights: Weights = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    policy: Annotated[str, RunInputField("required", random=True)] = ""
    """Policy file, such as policy0.json of a run; or 'random' to try the command."""
    data: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnet20_cifar10")
    )
    corruption: CorruptionConfig = CorruptionConfig()
    views: ViewsConfig = dataclasses.field(default_factory=lambda: ViewsConfig(counts=(5, 10, 100)))
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)


@dataclasses.dataclass(frozen=True)
class DrawnConfig(FlagGroup, flags="drawn"):
    """Predictions that are drawn at random, for the time of the search alone."""

    candidates: Count = 1101
    """Number of candidates."""
    objects: Count = 5000
    """Number of objects."""
    classes: Annotated[int, Range(2, 100000)] = 10
    """Number of classes."""
    length: Count = 100
    """Number of selections."""


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """Time of the search on drawn predictions."""

    drawn: DrawnConfig = DrawnConfig()
