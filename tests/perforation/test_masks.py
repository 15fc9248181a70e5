"""Masks against the formulas in exact fractions, brute force and frequencies of draws."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adaptive_nets.perforation import (
    graham_sequence,
    grid_mask,
    impact_mask,
    pooling_counts,
    pooling_structure_mask,
    regular_mask,
    uniform_mask,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

SHAPES = [(1, 9), (7, 5), (16, 16), (27, 31)]
LEVELS = [Fraction(1), Fraction(2, 3), *(Fraction(1, n) for n in range(2, 21))]
POOLING = {"window": (3, 3), "strides": (2, 2), "padding": "VALID"}
UNIT_INTERVAL = st.floats(0.0, 1.0, exclude_max=True)


def random_masks(key, shape, keep):
    yield uniform_mask(key, shape, keep)
    yield pooling_structure_mask(
        key, shape, keep, window=(2, 3), strides=(2, 1), padding=((0, 1), (1, 1))
    )
    yield impact_mask(np.asarray(jax.random.normal(key, shape)), keep)


@pytest.mark.parametrize("shape", SHAPES)
def test_floor_of_keep_times_positions_is_kept(shape, key):
    """At every level of the search, in the arithmetic of fractions."""
    for level in LEVELS:
        kept = math.floor(level * shape[0] * shape[1])
        for mask in random_masks(key, shape, float(level)) if kept else ():
            assert mask.dtype == np.bool_
            assert mask.shape == shape
            assert mask.sum() == kept


@pytest.mark.parametrize("size", [1, 2, 7, 13, 16, 55, 224])
def test_square_grid_keeps_the_root_on_each_axis(size, key):
    for level in LEVELS:
        if level * size * size < 1:
            continue
        mask = grid_mask(key, (size, size), float(level))
        side = math.isqrt(math.floor(level * size * size))
        rows, columns = mask.any(1), mask.any(0)
        assert rows.sum() == columns.sum() == side
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None, :])


@pytest.mark.parametrize("shape", [(1, 10), (10, 1), (2, 10), (9, 30), (30, 9), (37, 53)])
def test_grid_of_any_shape_never_keeps_more_than_asked(shape, key):
    for level in LEVELS:
        allowed = level * shape[0] * shape[1]
        if allowed < 1:
            continue
        mask = grid_mask(key, shape, float(level))
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None, :])
        assert 1 <= mask.sum() <= allowed
        fractions = (rows.mean(), columns.mean())
        if min(rows.sum(), columns.sum()) > 1:
            for fraction, size in zip(fractions, shape, strict=True):
                assert 0 <= math.sqrt(level) - fraction + 1e-9 < 1 / size + 2e-9
    thin = grid_mask(key, (2, 10), 0.2)
    assert thin.any(1).sum() == 1
    assert thin.any(0).sum() == 4


def test_grid_of_integer_ratio_is_regular(key):
    for seed in range(20):
        mask = grid_mask(jax.random.fold_in(key, seed), (12, 12), 1 / 9)
        for kept in (np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))):
            np.testing.assert_array_equal(np.diff(kept), [3, 3, 3])


def test_grid_draws_every_offset_on_each_axis_independently(key):
    pairs = []
    for seed in range(900):
        mask = grid_mask(jax.random.fold_in(key, seed), (6, 6), 1 / 9)
        pairs.append(3 * np.flatnonzero(mask.any(1))[0] + np.flatnonzero(mask.any(0))[0])
    assert stats.chisquare(np.bincount(pairs, minlength=9)).pvalue > 1e-3


@given(st.integers(1, 300), st.data(), UNIT_INTERVAL)
def test_sequence_has_gaps_of_floor_or_ceil(size, data, offset):
    count = data.draw(st.integers(1, size))
    kept = graham_sequence(size, count, offset)
    assert kept.shape == (count,)
    assert kept[0] >= 0
    assert kept[-1] < size
    assert set(np.diff(kept).tolist()) <= {size // count, -(-size // count)}
    if offset > 0:
        exact = [
            math.ceil(Fraction(size, count) * (i - 1 + Fraction(offset)))
            for i in range(1, count + 1)
        ]
        np.testing.assert_array_equal(kept, np.array(exact) - 1)


@pytest.mark.parametrize("offset", [0.0, 5e-324, np.nextafter(1.0, 0.0)])
def test_sequence_at_the_ends_of_the_draw(offset):
    """α (i − 1 + u) rounds to an integer in floating point; positions stay distinct and inside."""
    np.testing.assert_array_equal(graham_sequence(5, 5, offset), np.arange(5))
    first = 0 if offset < 0.5 else 3
    np.testing.assert_array_equal(graham_sequence(12, 3, offset), first + np.array([0, 4, 8]))


def test_sequence_alternates_between_gaps():
    """25 positions to 18 at u = 0.3: computed by hand for the first, α = 25/18."""
    np.testing.assert_array_equal(graham_sequence(25, 18, 0.3)[:6], [0, 1, 3, 4, 5, 7])


def brute_force_counts(shape, window, strides, pads):
    counts = np.zeros(shape, int)
    (top, bottom), (left, right) = pads
    for y in range(-top, shape[0] + bottom - window[0] + 1, strides[0]):
        for x in range(-left, shape[1] + right - window[1] + 1, strides[1]):
            for i, j in itertools.product(range(window[0]), range(window[1])):
                if 0 <= y + i < shape[0] and 0 <= x + j < shape[1]:
                    counts[y + i, x + j] += 1
    return counts


@pytest.mark.parametrize(
    ("shape", "window", "strides", "pads"),
    [
        ((9, 9), (3, 3), (2, 2), ((0, 0), (0, 0))),
        ((8, 11), (3, 2), (2, 1), ((1, 1), (0, 1))),
        ((10, 7), (2, 2), (3, 3), ((0, 0), (0, 0))),
        ((4, 4), (5, 5), (1, 2), ((2, 2), (1, 2))),
        ((6, 5), (1, 1), (1, 1), ((0, 0), (0, 0))),
    ],
)
def test_counts_equal_brute_force(shape, window, strides, pads):
    counts = pooling_counts(shape, window, strides, pads)
    np.testing.assert_array_equal(counts, brute_force_counts(shape, window, strides, pads))


@pytest.mark.parametrize("padding", ["SAME", "VALID", "same"])
@pytest.mark.parametrize("shape", [(9, 9), (8, 13)])
def test_named_padding_equals_the_gradient_of_sum_pooling(shape, padding):
    def pooled(x):
        return jnp.sum(jax.lax.reduce_window(x, 0.0, jax.lax.add, (3, 3), (2, 2), padding.upper()))

    counts = pooling_counts(shape, (3, 3), (2, 2), padding)
    np.testing.assert_array_equal(counts, jax.grad(pooled)(jnp.ones(shape)))


def test_counts_of_alexnets_pooling():
    counts = pooling_counts((13, 13), (3, 3), (2, 2), "VALID")
    assert set(counts.ravel().tolist()) == {1, 2, 4}
    inner = counts[1:-1, 1:-1]
    np.testing.assert_array_equal(inner[1::2, 1::2], 4)
    np.testing.assert_array_equal(inner[0::2, 0::2], 1)
    np.testing.assert_array_equal(inner[0::2, 1::2], 2)


def test_pooling_structure_keeps_the_most_read_first(key):
    """Of 13×13 positions 25 are read four times, 80 twice and 64 once."""
    counts = pooling_counts((13, 13), (3, 3), (2, 2), "VALID")
    for kept in (10, 25, 40, 150):
        mask = pooling_structure_mask(key, (13, 13), (kept + 0.5) / 169, **POOLING)
        assert mask.sum() == kept
        if kept < 169:
            assert counts[mask].min() >= counts[~mask].max()
    exactly = pooling_structure_mask(key, (13, 13), 25.5 / 169, **POOLING)
    np.testing.assert_array_equal(exactly, counts == 4)


def test_ties_of_pooling_structure_are_uniform(key):
    """5×5: one position is read by all four windows; two of the eight read twice are drawn."""
    draws = np.zeros((5, 5), int)
    for seed in range(800):
        draws += pooling_structure_mask(jax.random.fold_in(key, seed), (5, 5), 3.5 / 25, **POOLING)
    counts = pooling_counts((5, 5), (3, 3), (2, 2), "VALID")
    assert draws[counts == 4] == 800
    assert draws[counts < 2].sum() == 0
    assert stats.chisquare(draws[counts == 2]).pvalue > 1e-3


@pytest.mark.parametrize("shape", [*SHAPES, (9, 1), (3, 40), (40, 3)])
def test_regular_grid_has_steps_and_never_keeps_more(shape, key):
    for level in LEVELS:
        if level * shape[0] * shape[1] < 1:
            continue
        mask = regular_mask(key, shape, float(level))
        assert 1 <= mask.sum() <= level * shape[0] * shape[1]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        for kept in (rows, columns):
            assert len(set(np.diff(kept))) <= 1


def test_regular_grid_of_a_half_takes_every_second_column_from_either(key):
    masks = [regular_mask(jax.random.fold_in(key, seed), (4, 6), 0.5) for seed in range(16)]
    assert {tuple(np.flatnonzero(mask.any(0))) for mask in masks} == {(0, 2, 4), (1, 3, 5)}
    assert all(mask.any(1).all() for mask in masks)


def test_uniform_mask_has_no_preference(key):
    draws = np.zeros((4, 5), int)
    for seed in range(1500):
        draws += uniform_mask(jax.random.fold_in(key, seed), (4, 5), 0.31)
    assert draws.sum() == 1500 * 6
    # Without replacement the counts of one mask have variance k(1 − k) and covariance −k(1 − k)/19:
    # their χ² is that of 19 degrees of freedom after division by (1 − k)·20/19.
    statistic = ((draws - 450) ** 2 / 450).sum() / (1 - 6 / 20) * 19 / 20
    assert 1e-3 < stats.chi2(19).sf(statistic) < 1 - 1e-3


def test_impact_keeps_the_largest(rng):
    impact = rng.random((6, 9))
    mask = impact_mask(impact, 0.3)
    assert mask.sum() == 16
    assert impact[mask].min() > impact[~mask].max()
    np.testing.assert_array_equal(impact_mask(jnp.asarray(impact, jnp.float32), 0.3), mask)


def test_equal_impacts_stay_in_column_major_order():
    impact = np.ones((3, 4))
    impact[2, 3] = 2.0
    expected = np.zeros((3, 4), bool)
    expected[:, 0] = expected[0, 1] = expected[2, 3] = True
    np.testing.assert_array_equal(impact_mask(impact, 5 / 12), expected)


@pytest.mark.parametrize("make", [uniform_mask, grid_mask, regular_mask])
def test_masks_are_determined_by_the_key(make, key):
    first, again = make(key, (20, 21), 0.3), make(key, (20, 21), 0.3)
    np.testing.assert_array_equal(first, again)
    others = [make(jax.random.fold_in(key, i), (20, 21), 0.3) for i in range(5)]
    assert any((first != other).any() for other in others)


def test_keeping_all_is_the_full_mask(key):
    for shape in SHAPES:
        assert grid_mask(key, shape, 1).all()
        assert all(mask.all() for mask in random_masks(key, shape, 1.0))


MAKERS = {
    "uniform": lambda key, keep, shape: uniform_mask(key, shape, keep),
    "grid": lambda key, keep, shape: grid_mask(key, shape, keep),
    "regular": lambda key, keep, shape: regular_mask(key, shape, keep),
    "pooling": lambda key, keep, shape: pooling_structure_mask(key, shape, keep, **POOLING),
    "impact": lambda key, keep, shape: impact_mask(np.ones(shape), keep),
}


@pytest.mark.parametrize("keep", [0, -0.5, 1.001, float("nan"), float("inf"), 0.01, "half", None])
@pytest.mark.parametrize("make", MAKERS)
def test_bad_keep_is_one_line(make, keep, key):
    with pytest.raises(UserError, match=r"^keep is .*; expected") as error:
        MAKERS[make](key, keep, (9, 9))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(9,), (3, 4, 5), (0, 9), (3.0, 4.0), 9, "ab"])
@pytest.mark.parametrize("make", [uniform_mask, grid_mask, regular_mask])
def test_bad_shape_is_one_line(make, shape, key):
    with pytest.raises(UserError, match=r"^shape is .*; expected two integers"):
        make(key, shape, 0.5)


@pytest.mark.parametrize(
    "impact",
    [np.ones(4), np.ones((2, 2, 2)), np.ones((2, 2), bool), np.ones((0, 3)), np.array([["a"]])],
)
def test_bad_impact_is_one_line(impact):
    with pytest.raises(UserError, match=r"^impact has shape .*; expected float"):
        impact_mask(impact, 0.5)


def test_impact_must_be_finite():
    with pytest.raises(UserError, match="2 values that are not finite"):
        impact_mask(np.array([[1.0, np.nan], [np.inf, 0.0]]), 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (0, 3)}, "window is"),
        ({"strides": 0}, "strides is 0"),
        ({"padding": "FULL"}, "padding is 'FULL'"),
        ({"padding": 1.5}, "padding is 1.5"),
        ({"padding": ((0, -1), (0, 0))}, r"padding is \(\(0, -1\), "),
        ({"window": (10, 3)}, "window is 10 on an axis of 9"),
    ],
)
def test_bad_pooling_is_one_line(change, message, key):
    with pytest.raises(UserError, match=message):
        pooling_structure_mask(key, (9, 9), 0.5, **{**POOLING, **change})
