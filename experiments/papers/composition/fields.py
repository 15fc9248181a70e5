"""Configuration of the composition and its flags."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.duration import Timing, check_order
from adaptive_nets.training.ranges import (
    FlagGroup,
    InsideUnit,
    Moment,
    NonNegative,
    Range,
    Share,
)
from experiments.shared.ensembling.configs import CalibrationConfig, ViewsConfig
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class StartConfig(FlagGroup, flags="start"):
    """Trained network that all others start from."""

    weights: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained plain network: a run or a weights file; or 'random' to try the command."""


@dataclasses.dataclass(frozen=True)
class TuningConfig(FlagGroup, flags="tuning"):
    """What the tuning of all networks has in common."""

    networks: tuple[Literal["sparse", "adaptive", "both"], ...] = ("sparse", "adaptive", "both")
    """Networks to tune, beside the plain one."""
    plain_rate: Annotated[float, Range(0, 1)] = 0.01
    """Learning rate of trained weights, as a factor of that of log sigma^2."""
    head_rate: Annotated[float, Range(0, 1)] = 0.3
    """Learning rate of halting heads, as a factor of that of log sigma^2."""
    distillation: Share = 0.9
    """Share of the loss that follows the plain network's predictions in place of the labels."""
    softening: Annotated[float, Range(1e-3, 1e3)] = 4.0
    """Temperature of the predictions that are compared in distillation."""


@dataclasses.dataclass(frozen=True)
class VariationalConfig(FlagGroup, flags="variational"):
    """Sparse variational dropout of the trained weights."""

    kl_start: Moment = "5%"
    """Start of the linear warm-up of the divergence, a duration."""
    kl_full: Moment = "50%"
    """End of the linear warm-up of the divergence, a duration."""
    kl_weight: NonNegative = 1.0
    """Weight of the divergence after the warm-up; 1 gives the variational bound."""
    log_sigma2_init: Annotated[float, Range(-60, 60)] = -10.0
    """Initial log variance of every weight."""
    threshold: Annotated[float, Range()] = 3.0
    """Least log dropout rate, log alpha, of removed weights."""

    def __post_init__(self):
        super().__post_init__()
        self.check_times()

    def check_times(self, timing: Timing | None = None) -> None:
        """Raises a `UserError` if the warm-up starts after its end, as far as units tell."""
        start, end = self.kl_start, self.kl_full
        check_order("variational.kl-start", start, "variational.kl-full", end, timing)


@dataclasses.dataclass(frozen=True)
class HaltingConfig(FlagGroup, flags="halting"):
    """Spatially adaptive computation time."""

    tau: NonNegative = 0.5
    """Weight of the ponder cost in the loss, per unit of depth."""
    bias: Annotated[float, Range(-80, 80)] = -1.0
    """Initial bias of halting logits."""
    head_norm: bool = True
    """Normalise the inputs of halting heads."""
    eps: InsideUnit = 0.01
    """Halting threshold: a position halts once its scores sum to 1 - eps."""


@dataclasses.dataclass(frozen=True)
class CompositionConfig:
    """Tuning of one trained network with each method and with both, and views of each."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    start: StartConfig = StartConfig()
    policy: Annotated[str, RunInputField()] = ""
    """Policy of test-time augmentation: policy0.json of a run of gps, or a released file; empty for
    crops and flips alone."""
    tuning: TuningConfig = TuningConfig()
    variational: VariationalConfig = VariationalConfig()
    halting: HaltingConfig = HaltingConfig()
    views: ViewsConfig = dataclasses.field(default_factory=lambda: ViewsConfig(counts=(10,)))
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)
