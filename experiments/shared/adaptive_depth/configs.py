"""What depth that adapts adds to a configuration; for the sums of scores and for probabilities."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import TrainConfig, require, require_duration
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class DepthConfig:
    """What every network of adaptive depth has."""

    tau: float = 0.01
    """Weight of a block's mean cost in the loss, per unit of depth."""
    tau_ramp: str = "0%"
    """Time over which tau grows from 0; one of the remedies against units that die."""
    bias: float = -3.0
    """Initial bias of halting logits: low ones make all units run, so that all of them learn."""
    head_norm: bool = True
    """Normalise what halting heads read, as the authors' code does and the paper's formula not."""
    start_from: Annotated[str, RunInputField()] = ""
    """Trained plain network to start from: a run, RUN@STEP or a weights file; empty for none."""

    def __post_init__(self):
        require(self.tau >= 0, "halting.tau", self.tau, "0 or more")
        require_duration(self.tau_ramp, "halting.tau-ramp")


@dataclasses.dataclass(frozen=True)
class ScoresConfig(DepthConfig):
    """Halting by a sum of scores: ACT per image, SACT per position."""

    eps: float = 0.01
    """A block stops where its scores sum up to 1 - eps."""

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.eps < 1, "halting.eps", self.eps, "a number in (0, 1)")


@dataclasses.dataclass(frozen=True)
class LatentConfig(DepthConfig):
    """Halting as a latent variable: PACT."""

    temperature: float = 2 / 3
    """Of the relaxed halting indicators."""
    groups: int = 0
    """Groups of positions per axis that halt together, at most; 0 lets each halt by itself."""
    estimator: Literal["relaxation", "reinforce"] = "relaxation"
    """How gradients pass through the indicators in training."""
    baseline_decay: float = 0.99
    """Of the average reward that reinforce subtracts."""
    units: int = 0
    """Units per block of a smaller network of the same form; those of the named one where 0."""
    width: int = 0
    """Channels of the first block of a smaller network; those of the named one where 0."""

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
    """A training run with ACT or SACT."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    halting: ScoresConfig = ScoresConfig()


@dataclasses.dataclass(frozen=True)
class LatentTrainConfig:
    """A training run with PACT."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    halting: LatentConfig = LatentConfig()
