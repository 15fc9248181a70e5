"""Deep ensemble equivalents against a scan of the segments of the reference."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_nets.ensembling import deep_ensemble_equivalent, equivalent_bounds

pytestmark = pytest.mark.core

REFERENCE = [-1.0, -0.8, -0.7, -0.65]


def scanned(score: float, reference: list[float]) -> float:
    """The first point of the polygon through (l, reference(l)) that reaches the score."""
    if reference[0] >= score:
        return 1.0
    for i in range(1, len(reference)):
        low, high = reference[i - 1], reference[i]
        if high >= score:
            return i + (score - low) / (high - low)
    return float(len(reference))


def test_reference_itself_has_its_sizes():
    np.testing.assert_array_equal(deep_ensemble_equivalent(REFERENCE, REFERENCE), [1, 2, 3, 4])


def test_equivalents_are_interpolated_between_sizes():
    found = deep_ensemble_equivalent([-0.9, -0.85, -0.675], REFERENCE)
    np.testing.assert_allclose(found, [1.5, 1.75, 3.5], rtol=1e-12)


def test_equivalents_stay_in_the_range_of_sizes():
    found = deep_ensemble_equivalent([-5.0, -1.001, -0.649, 3.0], REFERENCE)
    np.testing.assert_array_equal(found, [1, 1, 4, 4])


def test_one_size_is_the_equivalent_of_everything():
    np.testing.assert_array_equal(deep_ensemble_equivalent([-2.0, -1.0, 0.0], [-1.0]), [1, 1, 1])


def test_first_crossing_counts():
    # Falls from 2 to 3 members, and passes the score twice.
    reference = [-1.0, -0.7, -0.9, -0.6]
    found = deep_ensemble_equivalent([-0.8, -0.7, -0.65], reference)
    np.testing.assert_allclose(found, [1 + 2 / 3, 2, 3 + 5 / 6], rtol=1e-12)


def test_flat_reference_counts_from_its_first_size():
    found = deep_ensemble_equivalent([-1.0, -0.5, -0.4], [-1.0, -0.5, -0.5, -0.5, -0.3])
    np.testing.assert_allclose(found, [1, 2, 4.5], rtol=1e-12)


NUMBERS = st.floats(-4, 4, allow_subnormal=False).map(lambda x: round(x, 3))


@settings(max_examples=200, deadline=None)
@given(scores=st.lists(NUMBERS, max_size=9), reference=st.lists(NUMBERS, min_size=1, max_size=9))
def test_equivalents_equal_a_scan_of_all_segments(scores, reference):
    expected = [scanned(score, reference) for score in scores]
    found = deep_ensemble_equivalent(scores, reference)
    assert found.dtype == np.float64
    assert found.shape == (len(scores),)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    forward = deep_ensemble_equivalent(scores, reference, forward_only=True)
    largest = 0.0
    for value, given_forward in zip(expected, forward, strict=True):
        largest = max(largest, value)
        assert given_forward == pytest.approx(largest, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(NUMBERS, max_size=7),
    pairs=st.lists(st.tuples(NUMBERS, st.floats(0, 2)), min_size=1, max_size=7),
)
def test_bounds_enclose_the_mean(scores, pairs):
    reference, deviation = (list(values) for values in zip(*pairs, strict=True))
    mean, lower, upper = equivalent_bounds(scores, reference, deviation)
    np.testing.assert_array_equal(mean, deep_ensemble_equivalent(scores, reference))
    above = [r + d for r, d in pairs]
    np.testing.assert_allclose(lower, [scanned(s, above) for s in scores], rtol=1e-9)
    assert (lower <= mean + 1e-9).all()
    assert (mean <= upper + 1e-9).all()


def test_bounds_of_a_straight_reference():
    # A deviation of half the slope moves the equivalent by half a member.
    found = equivalent_bounds([0.25, 1.0], [0.0, 1.0, 2.0], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(found.mean, [1.25, 2])
    np.testing.assert_allclose(found.lower, [1, 1.5])
    np.testing.assert_allclose(found.upper, [1.75, 2.5])


def test_bounds_without_deviation_are_equal():
    found = equivalent_bounds([-0.9, -0.7], REFERENCE, np.zeros(4))
    np.testing.assert_array_equal(found.lower, found.mean)
    np.testing.assert_array_equal(found.upper, found.mean)


def test_no_scores_have_no_equivalents():
    for forward_only in (False, True):
        found = deep_ensemble_equivalent([], REFERENCE, forward_only=forward_only)
        assert found.shape == (0,)
    assert all(part.shape == (0,) for part in equivalent_bounds([], REFERENCE, [0, 0, 0, 0]))


def test_jax_arrays_give_the_same():
    scores = jnp.asarray([-0.75, -2.0], jnp.float32)
    found = deep_ensemble_equivalent(scores, jnp.asarray(REFERENCE, jnp.float32))
    np.testing.assert_allclose(found, [2.5, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("scores", "reference", "texts"),
    [
        ([0.0], [], ("reference is empty",)),
        ([0.0], [[0.0, 1.0]], ("reference", "(1, 2)")),
        ([0.0], 1.0, ("reference", "()")),
        ([0.0], [0.0, np.nan], ("reference", "NaN")),
        ([0.0], [0.0, np.inf], ("reference", "infinite")),
        ([[0.0]], [0.0], ("scores", "(1, 1)")),
        (0.0, [0.0], ("scores", "()")),
        ([np.nan], [0.0], ("scores", "NaN")),
        ([-np.inf], [0.0], ("scores", "infinite")),
        ("text", [0.0], ("scores", "text")),
    ],
)
def test_bad_arguments_are_one_line(scores, reference, texts, complains):
    complains(lambda: deep_ensemble_equivalent(scores, reference), "expected", *texts)


@pytest.mark.parametrize(
    ("deviation", "texts"),
    [
        ([0.1], ("(1,)", "(4,)")),
        ([], ("(0,)", "(4,)")),
        ([0.1, 0.1, -0.2, 0.1], ("-0.2", "at least 0")),
        ([0.1, 0.1, np.nan, 0.1], ("NaN",)),
        ([0.1, 0.1, np.inf, 0.1], ("infinite",)),
    ],
)
def test_bad_deviations_are_one_line(deviation, texts, complains):
    complains(lambda: equivalent_bounds([0.0], REFERENCE, deviation), "deviation", *texts)


def test_bounds_of_no_reference_are_one_line(complains):
    complains(lambda: equivalent_bounds([0.0], [], []), "reference is empty")
