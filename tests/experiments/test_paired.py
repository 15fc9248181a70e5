"""Paired differences over the seeds of two groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from experiments.shared.paired import Difference, paired_difference


def test_the_interval_is_that_of_students_t(rng):
    first, second = rng.normal(72, 1, 10), rng.normal(71, 1, 10)
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    assert found is not None
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.interval() == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(first - second))


def test_two_pairs_have_a_wide_interval_and_one_has_none():
    # t of one degree of freedom is tan(0.475 π), 12.706.
    two = paired_difference({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})
    assert two == Difference(2.0, 1.0, 2)
    assert two.interval() == pytest.approx((2 - math.tan(0.475 * math.pi), 14.7062), abs=1e-3)
    one = paired_difference({4: 1.0}, {4: 3.0})
    assert one == Difference(-2.0, None, 1)
    assert one.interval() is None


def test_only_seeds_of_both_count():
    found = paired_difference({0: 1.0, 1: 2.0, 2: 9.0}, {0: 2.0, 1: 4.0, 7: 0.0})
    assert found == Difference(-1.5, 0.5, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({}, {}) is None
