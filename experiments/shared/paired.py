"""Paired differences of a measure between two groups of runs, over the seeds that both have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from experiments.suite.groups import Group

LEVEL = 0.95
"""Confidence level of intervals."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of paired differences.

    Attributes:
        mean: mean of the differences.
        error: standard error of the mean; None for a single pair.
        count: number of pairs.
    """

    mean: float
    error: float | None
    count: int

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Computes the confidence interval of the mean, mean ± t·s/√n; None for a single pair.

        Args:
            level: confidence level.
        """
        if self.error is None:
            return None
        half = float(stats.t.ppf(0.5 + level / 2, self.count - 1)) * self.error
        return self.mean - half, self.mean + half


def values_by_seed(group: Group, measure: str) -> dict[int, float]:
    """Returns the finite values of a measure by seed."""
    metrics = {record.seed: record.metric(measure) for record in group.records}
    return {s: m.value for s, m in metrics.items() if m is not None and m.value is not None}


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Computes the mean of first - second over the seeds of both; None if they share none.

    Args:
        first: value by seed.
        second: value by seed.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = np.array([first[seed] - second[seed] for seed in seeds], np.float64)
    count = len(seeds)
    error = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return Difference(float(differences.mean()), error, count)
