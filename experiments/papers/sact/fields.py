"""Configuration of plain networks of equal cost, and of training from a plain network."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.ranges import FlagGroup, InsideUnit, Range
from experiments.shared.adaptive_depth.configs import (
    ScoresConfig,
    ScoresTrainConfig,
    TunedDepthConfig,
)
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class EqualFlopsConfig(FlagGroup, flags="baseline"):
    """Units per block of a plain network with the cost of a network of adaptive depth."""

    like: Annotated[str, RunInputField()] = ""
    """Run of a network of adaptive depth; its mean units per block are rounded. Empty: as given."""
    units: Annotated[tuple[int, ...], Range(1, 1000)] = ()
    """Units per block, if no run is named."""


@dataclasses.dataclass(frozen=True)
class EqualFlopsTrainConfig:
    """Training of a plain network with the cost of a network of adaptive depth."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    baseline: EqualFlopsConfig = EqualFlopsConfig()


@dataclasses.dataclass(frozen=True)
class PretrainedScoresConfig(ScoresConfig):
    """Settings of halting by summed scores, trained from a plain network."""

    start_from: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained plain network to start from: a run, RUN@STEP or a weights file; or random."""


@dataclasses.dataclass(frozen=True)
class PretrainedScoresTrainConfig(ScoresTrainConfig):
    """Configuration of a training run with ACT or SACT from a trained plain network."""

    halting: PretrainedScoresConfig = PretrainedScoresConfig()


@dataclasses.dataclass(frozen=True)
class TunedScoresConfig(TunedDepthConfig):
    """Settings of the second stage with ACT or SACT."""

    rule: Literal["act", "sact"] = "sact"
    """Halting rule: act decides per image, sact at every position."""
    eps: InsideUnit = 0.01
    """Halting threshold: a decision halts once its scores sum to 1 - eps."""

    def at(self, tau: float) -> ScoresConfig:
        """Returns the settings of the network of one tau."""
        return ScoresConfig(
            tau, self.tau_ramp, self.bias, self.head_norm, self.start_from, self.shifts,
            self.tau_growth, eps=self.eps,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TunedScoresTrainConfig:
    """Second stage of a trained plain network with ACT or SACT; `train` is the tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    halting: TunedScoresConfig = TunedScoresConfig()
