"""Configuration of the figure of ACT's ponder cost, and of training from a plain network."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from adaptive_nets.training.ranges import FlagGroup, InsideUnit, Range
from experiments.shared.adaptive_depth.configs import LatentConfig, LatentTrainConfig
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class ScoreCurveConfig(FlagGroup, flags="curve"):
    """Halting scores of one block, of which the first varies from 0 to 1."""

    others: Annotated[tuple[float, ...], Range(0, 1, least=1)] = (1 / 3, 1 / 3, 1 / 3)
    """Scores of the units after the first and before the last, which has none."""
    eps: InsideUnit = 0.01
    """Halting threshold of ACT: a block halts once its scores sum to 1 - eps."""
    points: Annotated[int, Range(2, 10**6)] = 10001
    """Number of values of the first score."""


@dataclasses.dataclass(frozen=True)
class DiscontinuityConfig:
    """Ponder cost of ACT and expected number of units of PACT, of the same scores."""

    curve: ScoreCurveConfig = ScoreCurveConfig()


@dataclasses.dataclass(frozen=True)
class PretrainedLatentConfig(LatentConfig):
    """Settings of halting as a latent variable, trained from a plain network."""

    start_from: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained plain network to start from: a run, RUN@STEP or a weights file; or random."""


@dataclasses.dataclass(frozen=True)
class PretrainedLatentTrainConfig(LatentTrainConfig):
    """Configuration of a training run with PACT from a trained plain network."""

    halting: PretrainedLatentConfig = PretrainedLatentConfig()
