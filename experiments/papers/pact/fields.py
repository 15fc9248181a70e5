"""Configuration of the figure of ACT's discontinuous ponder cost."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import require


@dataclasses.dataclass(frozen=True)
class ScoreCurveConfig:
    """Halting scores of one block, of which the first varies from 0 to 1."""

    others: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    """Scores of the units after the first and before the last, which has none."""
    eps: float = 0.01
    """Halting threshold of ACT: a block halts once its scores sum to 1 - eps."""
    points: int = 10001
    """Number of values of the first score."""

    def __post_init__(self):
        require(
            bool(self.others) and all(0 <= score <= 1 for score in self.others),
            "curve.others",
            self.others,
            "at least one number in [0, 1]",
        )
        require(0 < self.eps < 1, "curve.eps", self.eps, "a number in (0, 1)")
        require(2 <= self.points <= 10**6, "curve.points", self.points, "2 to 1,000,000 points")


@dataclasses.dataclass(frozen=True)
class DiscontinuityConfig:
    """Ponder cost of ACT and expected number of units of PACT, of the same scores."""

    curve: ScoreCurveConfig = ScoreCurveConfig()
