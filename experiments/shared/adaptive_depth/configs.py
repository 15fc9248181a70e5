"""Configuration groups of adaptive depth, for ACT and SACT and for PACT."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import TrainConfig, require
from adaptive_nets.training.ranges import (
    FlagGroup,
    InsideUnit,
    Moment,
    NonNegative,
    Range,
    Share,
    Size,
)
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField

Shifts = Annotated[tuple[float, ...], Range(-1000, 1000)]
"""Type of a range of shifts: two numbers, or none."""


def _check_shifts(shifts: tuple[float, ...], growth: float) -> None:
    ordered = len(shifts) == 2 and shifts[0] < shifts[1]
    require(not shifts or ordered, "halting.shifts", shifts, "two increasing numbers, or none")
    require(not growth or ordered, "halting.tau_growth", growth, "0 without halting.shifts")


@dataclasses.dataclass(frozen=True)
class DepthConfig(FlagGroup, flags="halting"):
    """Settings of every network of adaptive depth."""

    tau: NonNegative = 0.01
    """Weight of the ponder cost in the loss, per unit of depth."""
    tau_ramp: Moment = "0%"
    """Length of the linear ramp of tau from 0, a remedy against dead units."""
    bias: Annotated[float, Range(-80, 80)] = -3.0
    """Initial bias of halting logits; with low values all units run at first and learn."""
    head_norm: bool = True
    """Normalise the inputs of halting heads, as in the authors' code but not in the paper."""
    start_from: Annotated[str, RunInputField()] = ""
    """Trained plain network to start from: a run, RUN@STEP or a weights file; empty for none."""
    shifts: Shifts = ()
    """Least and most random shift of the halting logits of a training image, so that one network
    serves all budgets; empty for none."""
    tau_growth: Annotated[float, Range(0, 100)] = 0.0
    """Growth of the logarithm of tau with the shift of an image, so that tau of an image is
    tau * exp(tau_growth * shift)."""

    def __post_init__(self):
        super().__post_init__()
        _check_shifts(self.shifts, self.tau_growth)


@dataclasses.dataclass(frozen=True)
class ScoresConfig(DepthConfig):
    """Settings of halting by summed scores: ACT per image, SACT per position."""

    eps: InsideUnit = 0.01
    """Halting threshold: a decision halts once its scores sum to 1 - eps."""


@dataclasses.dataclass(frozen=True)
class LatentConfig(DepthConfig):
    """Settings of halting as a latent variable: PACT."""

    temperature: Annotated[float, Range(1e-6, 1e6)] = 2 / 3
    """Temperature of the relaxed halting indicators."""
    groups: Size = 0
    """Largest number of groups of positions per axis that halt together; 0: one per position."""
    estimator: Literal["relaxation", "reinforce"] = "relaxation"
    """Gradient estimator of the halting indicators."""
    baseline_decay: Share = 0.99
    """Decay of the moving average of rewards that reinforce subtracts."""
    units: Annotated[int, Range(0, 1000)] = 0
    """Number of units per block; 0 for that of the named network."""
    width: Annotated[int, Range(0, 1024)] = 0
    """Number of channels of the first block; 0 for that of the named network."""

    def __post_init__(self):
        super().__post_init__()
        relaxed = self.estimator == "relaxation"
        require(relaxed or not self.shifts, "halting.shifts", self.shifts, "none with reinforce")


@dataclasses.dataclass(frozen=True)
class TunedDepthConfig(FlagGroup, flags="halting"):
    """Settings of the second stage: a trained plain network becomes one of adaptive depth."""

    start_from: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained plain network to start from: a run or a weights file; or random, to try it."""
    taus: Annotated[tuple[float, ...], Range(0, 1e6, least=1)] = (0.01,)
    """Weights of the ponder cost, increasing; one network is tuned for each."""
    tau_ramp: Moment = "0%"
    """Length of the linear ramp of tau from 0."""
    bias: Annotated[float, Range(-80, 80)] = -3.0
    """Initial bias of halting logits; with low values all units run at first."""
    head_norm: bool = True
    """Normalise the inputs of halting heads, as in the authors' code but not in the paper."""
    plain_rate: Annotated[float, Range(0, 1)] = 1.0
    """Learning rate of the plain network's weights, as a factor of that of the halting heads."""
    distillation: Share = 0.0
    """Share of the loss that follows the plain network's predictions in place of the labels."""
    softening: Annotated[float, Range(1e-3, 1e3)] = 4.0
    """Temperature of the predictions that are compared in distillation."""
    shifts: Shifts = ()
    """Least and most random shift of the halting logits of a training image, so that one network
    serves all budgets; empty for none."""
    tau_growth: Annotated[float, Range(0, 100)] = 0.0
    """Growth of the logarithm of tau with the shift of an image, so that tau of an image is
    tau * exp(tau_growth * shift)."""

    def __post_init__(self):
        super().__post_init__()
        _check_shifts(self.shifts, self.tau_growth)
        # Six digits name a network's folder and metrics.
        names = [float(f"{tau:g}") for tau in self.taus]
        require(
            names == sorted(set(names)),
            "halting.taus",
            self.taus,
            "increasing numbers that differ in their first six digits",
        )

    def at(self, tau: float) -> DepthConfig:
        """Returns the settings of the network of one tau."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TunedLatentConfig(TunedDepthConfig):
    """Settings of the second stage with PACT."""

    temperature: Annotated[float, Range(1e-6, 1e6)] = 2 / 3
    """Temperature of the relaxed halting indicators."""
    groups: Size = 0
    """Largest number of groups of positions per axis that halt together; 0: one per position."""

    def at(self, tau: float) -> LatentConfig:
        """Returns the settings of the network of one tau."""
        return LatentConfig(
            tau, self.tau_ramp, self.bias, self.head_norm, self.start_from,
            self.shifts, self.tau_growth, temperature=self.temperature, groups=self.groups,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ScoresTrainConfig:
    """Configuration of a training run with ACT or SACT."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    halting: ScoresConfig = ScoresConfig()


@dataclasses.dataclass(frozen=True)
class LatentTrainConfig:
    """Configuration of a training run with PACT."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    halting: LatentConfig = LatentConfig()


@dataclasses.dataclass(frozen=True)
class TunedLatentTrainConfig:
    """Second stage of a trained plain network with PACT; `train` is the tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    halting: TunedLatentConfig = TunedLatentConfig()
