"""Every slow test is in one slice, and long ones are spread."""

from __future__ import annotations

import json

import pytest
from slow_slices import KNOWN, assign_slices, group_of, parse_slice, slice_of


def test_slices_of_known_length_take_equally_long():
    seconds = {f"test{i}": float(10 + i) for i in range(40)}
    assigned = assign_slices(seconds, 10)
    totals = [sum(seconds[n] for n, s in assigned.items() if s == k) for k in range(10)]
    assert set(assigned) == set(seconds)
    assert max(totals) - min(totals) <= 10
    assert assign_slices(dict(reversed(seconds.items())), 10) == assigned


def test_the_recorded_lengths_are_spread():
    seconds = json.loads(KNOWN.read_text(encoding="utf-8"))
    assigned = assign_slices(seconds, 10)
    totals = [sum(seconds[n] for n, s in assigned.items() if s == k) for k in range(10)]
    assert max(totals) <= max(1.3 * sum(totals) / 10, *seconds.values())


def test_tests_of_the_same_parameters_share_a_slice():
    first, second = "tests/a.py::test_x[net-dear]", "tests/a.py::test_y[net-dear]"
    assert group_of(first) == group_of(second) == "tests/a.py[net-dear]"
    assert group_of("tests/a.py::test_x") == "tests/a.py::test_x"
    assert slice_of(first, 10) == slice_of(second, 10)
    assert {slice_of(f"tests/a.py::test_{i}", 10) for i in range(200)} == set(range(10))


@pytest.mark.parametrize("text", ["10/10", "1", "-1/10", "a/b", "1/0", "/"])
def test_a_slice_that_does_not_exist_is_refused(text):
    assert parse_slice("9/10") == (9, 10)
    with pytest.raises(pytest.UsageError, match=r"--slow-slice is .* expected K/N"):
        parse_slice(text)
