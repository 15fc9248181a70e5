"""Interleaved timing of contenders that do the same work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

MINIMUM_ROUNDS, MAXIMUM_ROUNDS = 5, 41


def time_interleaved(
    contenders: Mapping[str, Callable[[], float | None]], *, seconds: float
) -> dict[str, tuple[float, ...]]:
    """Times contenders in turns, after a warm-up; returns seconds per round by name.

    Args:
        contenders: name -> function that does the work once and waits for it. If it returns a
            number, this number is taken as its time in seconds.
        seconds: approximate time of all rounds together.
    """

    def once(work: Callable[[], float | None]) -> float:
        began = time.perf_counter()
        measured = work()
        return time.perf_counter() - began if measured is None else measured

    for work in contenders.values():
        once(work)
    round_seconds = sum(once(work) for work in contenders.values())
    rounds = min(MAXIMUM_ROUNDS, max(MINIMUM_ROUNDS, int(seconds / max(round_seconds, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(once(contenders[name]))
    return {name: tuple(values) for name, values in times.items()}


def medians(times: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    """Returns the median time of each contender."""
    return {name: statistics.median(values) for name, values in times.items()}
