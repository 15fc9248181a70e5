"""Paired differences between networks over seeds, and verdicts on claims.

Two networks are compared on seeds that both have, with the same preset, data, steps and changes of
the recipe. The interval of the mean difference is that of Student's t distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.shared.paired import Difference, paired_difference, values_by_seed
from experiments.suite.groups import Group, changes, group_records
from experiments.suite.records import Record


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
        one, other = (values_by_seed(found[name], measure) for name in (first, second))
        difference = paired_difference(one, other)
        if difference is not None:
            return difference, found[first]
    return None


def within(difference: Difference, low: float, high: float) -> str:
    """Returns whether a difference lies between two bounds: the verdict on a claim.

    Returns:
        "holds" if the whole interval lies between them, "does not hold" if no part of it does,
        "undecided" otherwise, and "undecided (one seed)" without an interval.
    """
    interval = difference.interval()
    if interval is None:
        return "undecided (one seed)"
    first, last = interval
    if low <= first and last <= high:
        return "holds"
    if last < low or first > high:
        return "does not hold"
    return "undecided"


def difference_text(difference: Difference) -> str:
    """Formats a difference with its interval: "-1.20 [-1.60, -0.80]"."""
    text = f"{difference.mean:+.2f}"
    interval = difference.interval()
    if interval is None:
        return text
    return f"{text} [{interval[0]:+.2f}, {interval[1]:+.2f}]"
