"""Configuration groups of adaptive depth, for ACT and SACT and for PACT."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import TrainConfig, require, require_duration
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class DepthConfig:
    """Settings of every network of adaptive depth."""

    tau: float = 0.01
    """Weight of the ponder cost in the loss, per unit of depth."""
    tau_ramp: str = "0%"
    """Length of the linear ramp of tau from 0, a remedy against dead units."""
    bias: float = -3.0
    """Initial bias of halting logits; with low values all units run at first and learn."""
    head_norm: bool = True
    """Normalise the inputs of halting heads, as in the authors' code but not in the paper."""
    start_from: Annotated[str, RunInputField()] = ""
    """Trained plain network to start from: a run, RUN@STEP or a weights file; empty for none."""

    def __post_init__(self):
        require(self.tau >= 0, "halting.tau", self.tau, "0 or more")
        require_duration(self.tau_ramp, "halting.tau-ramp")


@dataclasses.dataclass(frozen=True)
class ScoresConfig(DepthConfig):
    """Settings of halting by summed scores: ACT per image, SACT per position."""

    eps: float = 0.01
    """Halting threshold: a decision halts once its scores sum to 1 - eps."""

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.eps < 1, "halting.eps", self.eps, "a number in (0, 1)")


@dataclasses.dataclass(frozen=True)
class LatentConfig(DepthConfig):
    """Settings of halting as a latent variable: PACT."""

    temperature: float = 2 / 3
    """Temperature of the relaxed halting indicators."""
    groups: int = 0
    """Largest number of groups of positions per axis that halt together; 0: one per position."""
    estimator: Literal["relaxation", "reinforce"] = "relaxation"
    """Gradient estimator of the halting indicators."""
    baseline_decay: float = 0.99
    """Decay of the moving average of rewards that reinforce subtracts."""
    units: int = 0
    """Number of units per block; 0 for that of the named network."""
    width: int = 0
    """Number of channels of the first block; 0 for that of the named network."""

    def __post_init__(self):
        super().__post_init__()
        require(self.temperature > 0, "halting.temperature", self.temperature, "a number above 0")
        for name in ("groups", "units", "width"):
            value = getattr(self, name)
            require(value >= 0, f"halting.{name}", value, "a whole number, 0 or more")
        require(
            0 <= self.baseline_decay < 1,
            "halting.baseline-decay",
            self.baseline_decay,
            "a number in [0, 1)",
        )


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
