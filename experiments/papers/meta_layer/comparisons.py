"""Paired differences between networks over seeds, and verdicts on the article's claims.

Two networks are compared on seeds that both have, with the same preset, data, steps and changes of
the recipe. The interval of the mean difference is that of Student's t distribution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from experiments.suite.groups import Group, changes, group_records
from experiments.suite.records import Record

LEVEL = 0.95
"""Confidence level of intervals."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its confidence interval.

    Attributes:
        mean: mean of the differences.
        low: lower end of the interval; NaN for a single pair.
        high: upper end of the interval; NaN for a single pair.
        count: number of pairs.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def has_interval(self) -> bool:
        """True if there are two pairs or more."""
        return self.count > 1


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = LEVEL
) -> Difference:
    """Computes the mean of first - second and its interval, mean ± t·s/√n.

    Args:
        first: values of one network, one per seed.
        second: values of the other, in the order of the same seeds.
        level: confidence level.

    Raises:
        ValueError: the sequences are empty or of different lengths.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} values; expected equally many, 1 or more")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    count, mean = len(differences), float(differences.mean())
    if count < 2:
        return Difference(mean, math.nan, math.nan, count)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
    return Difference(mean, mean - half, mean + half, count)


def comparable(records: Sequence[Record], ids: Sequence[str]) -> list[dict[str, Group]]:
    """Returns groups of experiments that were run alike, the largest runs first.

    Smoke runs are used only if there are no others. Runs in which a flag that defines the row is
    changed are left out.

    Args:
        records: records of any experiments.
        ids: experiments to compare.

    Returns:
        For every preset, data set, number of steps and change of the recipe: id -> group, in the
        order of `ids`, of those that have one.
    """
    groups = group_records([record for record in records if record.experiment in ids])
    groups = [group for group in groups if not group.row_changes]
    groups = [group for group in groups if group.preset != "smoke"] or groups
    alike: dict[tuple, dict[str, Group]] = {}
    for group in groups:
        first = group.records[0]
        key = group.preset, first.dataset["fingerprint"], first.steps, changes(first)
        alike.setdefault(key, {}).setdefault(first.experiment, group)
    return [{name: found[name] for name in ids if name in found} for found in alike.values()]


def compared(
    records: Sequence[Record], first: str, second: str, measure: str
) -> tuple[Difference, Group] | None:
    """Compares a measure of two experiments, first - second, on the largest runs that both have.

    Args:
        records: records of any experiments.
        first: id of one experiment.
        second: id of the other.
        measure: name of the metric.

    Returns:
        The difference and the first experiment's group; None if no seed of both was run alike.
    """
    for found in comparable(records, (first, second)):
        if len(found) < 2:
            continue
        values = [_by_seed(found[name], measure) for name in (first, second)]
        seeds = sorted(values[0].keys() & values[1].keys())
        if seeds:
            pairs = [[part[seed] for seed in seeds] for part in values]
            return paired_difference(*pairs), found[first]
    return None


def _by_seed(group: Group, measure: str) -> dict[int, float]:
    metrics = {record.seed: record.metric(measure) for record in group.records}
    return {s: m.value for s, m in metrics.items() if m is not None and m.value is not None}


def within(difference: Difference, low: float, high: float) -> str:
    """Returns whether a difference lies between two bounds: the verdict on a claim.

    Returns:
        "holds" if the whole interval lies between them, "does not hold" if no part of it does,
        "undecided" otherwise, and "undecided (one seed)" without an interval.
    """
    if not difference.has_interval:
        return "undecided (one seed)"
    if low <= difference.low and difference.high <= high:
        return "holds"
    if difference.high < low or difference.low > high:
        return "does not hold"
    return "undecided"
