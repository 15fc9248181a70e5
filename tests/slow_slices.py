"""Slow tests in slices, so that each submission runs a few of them and ten run all.

    pytest -m slow --slow-slice 3/10      the slow tests of slice 3
    pytest -m slow --slow-budget 600      starts no slow test after 600 seconds
    pytest -m slow --record-seconds F     writes processor seconds of every test, for the balance

Tests of one file with the same parameters share what their fixtures compile, and so a slice. Those
of many seconds are listed in `slow_seconds.json` and are spread so that the slices take equally
long; all others are spread by a hash.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

KNOWN = Path(__file__).with_name("slow_seconds.json")
OUT_OF_TIME = "not started: the time for slow tests is used up"
_SECONDS = "processor_seconds"
_STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the options."""
    group = parser.getgroup("slow tests")
    group.addoption("--slow-slice", metavar="K/N", help="run slice K of N of the slow tests")
    group.addoption(
        "--slow-budget", metavar="SECONDS", type=float, help="start no slow test after this time"
    )
    group.addoption("--record-seconds", metavar="FILE", help="write each test's processor seconds")


def parse_slice(text: str) -> tuple[int, int]:
    """Returns number and count of slices from "K/N" with 0 <= K < N.

    Raises:
        pytest.UsageError: The text is not of this form.
    """
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and int(number) < int(count):
        return int(number), int(count)
    raise pytest.UsageError(f"--slow-slice is {text!r}; expected K/N with 0 <= K < N, such as 3/10")


def assign_slices(seconds: Mapping[str, float], count: int) -> dict[str, int]:
    """Spreads tests of known length, the longest first, each into the shortest slice so far."""
    totals = [0.0] * count
    assigned = {}
    for name, length in sorted(seconds.items(), key=lambda item: (-item[1], item[0])):
        shortest = min(range(count), key=lambda i: (totals[i], i))
        totals[shortest] += length
        assigned[name] = shortest
    return assigned


@functools.cache
def _known_slices(count: int) -> dict[str, int]:
    return assign_slices(json.loads(KNOWN.read_text(encoding="utf-8")), count)


def group_of(nodeid: str) -> str:
    """Returns what decides on a test's slice: file and parameters, or the whole id without any."""
    path, _, rest = nodeid.partition("::")
    _, bracket, parameters = rest.partition("[")
    return f"{path}[{parameters}" if bracket else nodeid


def slice_of(nodeid: str, count: int) -> int:
    """Returns the slice of a test, 0 ... count - 1."""
    group = group_of(nodeid)
    known = _known_slices(count).get(group)
    if known is not None:
        return known
    return int(hashlib.sha256(group.encode()).hexdigest(), 16) % count


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the slow tests of other slices."""
    if not config.option.slow_slice:
        return
    number, count = parse_slice(config.option.slow_slice)
    others = [
        item for item in items if "slow" in item.keywords and slice_of(item.nodeid, count) != number
    ]
    config.hook.pytest_deselected(items=others)
    left_out = set(others)
    items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> str | None:
    """States the slice."""
    return f"slow tests: slice {config.option.slow_slice}" if config.option.slow_slice else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a slow test once the time for them is used up."""
    budget = item.config.option.slow_budget
    if budget is not None and "slow" in item.keywords and time.monotonic() - _STARTED > budget:
        pytest.skip(OUT_OF_TIME)


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Notes the processor time of a test with its fixtures; that of children once they ended."""
    before = _processor_seconds()
    item.user_properties.append((_SECONDS, before))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Replaces the time before a test by the time it took, when it is torn down."""
    if call.when == "teardown":
        properties = dict(item.user_properties)
        spent = _processor_seconds() - properties[_SECONDS]
        item.user_properties[:] = [*(properties | {_SECONDS: round(spent, 2)}).items()]
    return (yield)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Names the tests that were not started, and writes the measured times."""
    skipped = terminalreporter.stats.get("skipped", [])
    for report in skipped:
        if isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(OUT_OF_TIME):
            terminalreporter.write_line(f"{report.nodeid}: {OUT_OF_TIME}")
    if config.option.record_seconds:
        reports = terminalreporter.stats.get("", [])
        seconds = {
            report.nodeid: dict(report.user_properties)[_SECONDS]
            for report in reports
            if report.when == "teardown"
        }
        text = json.dumps(dict(sorted(seconds.items())), indent=0)
        Path(config.option.record_seconds).write_text(text + "\n", encoding="utf-8")
