"""Two numbers of impact maps on maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_nets.perforation import pooling_counts
from adaptive_nets.perforation.impact_structure import centre_bias, pooling_correlation
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def test_the_centre_bias_is_the_central_half_over_all():
    assert centre_bias(np.full((7, 9), 3.0)) == pytest.approx(1)
    only = np.zeros((8, 8))
    only[2:6, 2:6] = 1
    assert centre_bias(only) == pytest.approx(4)
    assert centre_bias(1 - only) == 0
    # Of five rows the central half is 1 … 3, of three columns 0 … 2.
    ramp = np.arange(15.0).reshape(5, 3)
    assert centre_bias(ramp) == pytest.approx(ramp[1:4].mean() / ramp.mean())


def test_the_correlation_is_of_the_grid_alone(rng):
    counts = pooling_counts((16, 17), (3, 3), (2, 2), "VALID")
    assert pooling_correlation(counts, counts) == pytest.approx(1)
    hill = np.exp(-((np.arange(16)[:, None] - 8) ** 2 + (np.arange(17) - 8) ** 2) / 90)
    assert pooling_correlation(hill * counts, counts) > 0.95
    assert abs(pooling_correlation(rng.random((16, 17)), counts)) < 0.25
    assert pooling_correlation(1 / (1 + counts), counts) < -0.7


def test_what_does_not_vary_has_no_correlation():
    flat = np.ones((6, 6))
    assert pooling_correlation(flat, np.arange(36).reshape(6, 6)) is None
    assert pooling_correlation(np.arange(36.0).reshape(6, 6), flat) is None


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"counts has shape \(3, 4\); expected \(4, 3\)"):
        pooling_correlation(np.ones((4, 3)), np.ones((3, 4)))
    for wrong in (np.zeros((3, 3)), np.ones(3)):
        with pytest.raises(UserError, match="with a positive sum"):
            centre_bias(wrong)
