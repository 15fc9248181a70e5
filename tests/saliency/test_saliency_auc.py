"""AUC-Judd and shuffled AUC against plain definitions, closed forms and rank statistics."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import adaptive_nets as an
from adaptive_nets.saliency import auc_judd, auc_shuffled, centre_baseline, fixation_density


def by_definition(values, fixated) -> float:
    """AUC-Judd of distinct values, one threshold after the other."""
    points = {(0.0, 0.0), (1.0, 1.0)}
    for threshold in values[fixated]:
        true = np.mean(values[fixated] >= threshold)
        false = np.mean(values[~fixated] >= threshold)
        points.add((float(false), float(true)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(sorted(points)[:-1], sorted(points)[1:], strict=True):
        area += (x1 - x0) * (y0 + y1) / 2
    return area


def pairs_in_order(positive, negative) -> float:
    """Share of pairs in which the positive is larger, equal ones counted half; all pairs."""
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return float(wins) / (len(positive) * len(negative))


def lowest_rate(values, fixated) -> float:
    return float(np.mean(values[~fixated] >= values[fixated].min()))


def drawn(rng, shape, count):
    fixated = np.zeros(shape, bool)
    fixated.ravel()[rng.choice(fixated.size, count, replace=False)] = True
    return fixated


SIZES = [((1, 2), 1), ((7, 5), 1), ((7, 5), 34), ((11, 13), 9), ((1, 40), 20), ((24, 31), 200)]


@pytest.mark.parametrize(("shape", "count"), SIZES)
def test_auc_judd_is_the_area_of_its_definition(rng, shape, count):
    for _ in range(5):
        values, fixated = rng.standard_normal(shape), drawn(rng, shape, count)
        expected = by_definition(values, fixated)
        assert auc_judd(values, fixated, jitter=0) == pytest.approx(expected, abs=1e-12)
        assert auc_judd(values, fixated) == pytest.approx(expected, abs=1e-4)
        # The rank statistic, and the first trapezoid of the curve.
        ranks = pairs_in_order(values[fixated], values[~fixated])
        more = lowest_rate(values, fixated) / (2 * count)
        assert expected == pytest.approx(ranks + more, abs=1e-12)


def test_perfect_and_worst_maps(rng):
    fixated = drawn(rng, (9, 8), 10)
    assert auc_judd(fixated, fixated) == 1
    assert auc_judd(fixated * 1.0 + 0.5 * rng.uniform(size=(9, 8)), fixated) == 1
    worst = auc_judd(-1.0 * fixated + 0.5 * rng.uniform(size=(9, 8)), fixated)
    assert worst == pytest.approx(1 / 20)  # Only the first trapezoid.
    assert auc_shuffled(fixated, fixated, ~fixated) == 1
    assert auc_shuffled(-1.0 * fixated, fixated, ~fixated) == 0


@pytest.mark.parametrize("constant", [0.0, 3.7, -1e300])
def test_a_constant_map_has_one_half(rng, constant):
    for count in (1, 5, 71):
        fixated = drawn(rng, (8, 9), count)
        assert auc_judd(np.full((8, 9), constant), fixated) == 0.5
        assert auc_shuffled(np.full((8, 9), constant), fixated, np.ones((8, 9))) == 0.5


def test_complements_sum_to_one(rng):
    values, fixated = rng.standard_normal((40, 30)), drawn(rng, (40, 30), 150)
    both = auc_judd(values, fixated, jitter=0) + auc_judd(-values, fixated, jitter=0)
    more = (lowest_rate(values, fixated) + lowest_rate(-values, fixated)) / 300
    assert both == pytest.approx(1 + more, abs=1e-12)
    assert both == pytest.approx(1, abs=1e-2)
    others = drawn(rng, (40, 30), 60)
    shuffled = auc_shuffled(values, fixated, others) + auc_shuffled(-values, fixated, others)
    assert shuffled == pytest.approx(1, abs=1e-12)


def test_scale_and_shift_do_not_matter(rng):
    values, fixated = rng.uniform(size=(12, 10)), drawn(rng, (12, 10), 20)
    expected = auc_judd(values, fixated)
    for changed in (5 * values - 2, 1e150 * values, 1e-150 * values, np.exp(values)):
        assert auc_judd(changed, fixated) == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(auc_judd(np.where(fixated, 1.7e308, -1.7e308), fixated))


def test_jitter_separates_equal_pixels_and_is_seeded(rng):
    values, fixated = rng.integers(0, 3, (20, 20)), drawn(rng, (20, 20), 50)
    first = auc_judd(values, fixated, seed=1)
    assert first == auc_judd(values, fixated, seed=1)
    assert first != auc_judd(values, fixated, seed=2)
    mean = np.mean([auc_judd(values, fixated, seed=i) for i in range(200)])
    ranks = pairs_in_order(values[fixated], values[~fixated])
    assert mean == pytest.approx(ranks, abs=0.015)


def test_arrays_of_jax_and_zeros_and_ones_serve(rng):
    values = rng.uniform(size=(6, 7)).astype(np.float32)
    fixated = drawn(rng, (6, 7), 6)
    expected = auc_judd(values, fixated)
    assert isinstance(expected, float)
    assert auc_judd(jnp.asarray(values), jnp.asarray(fixated)) == expected
    assert an.saliency.auc_judd(values.tolist(), fixated.astype(np.uint8)) == expected


def test_shuffled_auc_is_the_share_of_pairs(rng):
    values = rng.integers(0, 6, (8, 9)).astype(float)
    fixated, others = drawn(rng, (8, 9), 12), rng.integers(0, 3, (8, 9))
    negative = np.repeat(values.ravel(), others.ravel())
    expected = pairs_in_order(values[fixated], negative)
    assert auc_shuffled(values, fixated, others) == pytest.approx(expected, abs=1e-12)


def test_the_centre_gains_nothing_under_shuffling(rng):
    """Fixations of all images have the same centre bias."""
    bias = centre_baseline((60, 80)).ravel()
    fixated, others = np.zeros(4800, bool), np.zeros(4800)
    fixated[rng.choice(4800, 400, replace=False, p=bias / bias.sum())] = True
    np.add.at(others, rng.choice(4800, 4000, p=bias / bias.sum()), 1)
    shape = (60, 80)
    centre = bias.reshape(shape)
    assert auc_judd(centre, fixated.reshape(shape)) > 0.65
    shuffled = auc_shuffled(centre, fixated.reshape(shape), others.reshape(shape))
    assert shuffled == pytest.approx(0.5, abs=0.06)
    density = fixation_density(fixated.reshape(shape), sigma=2)
    assert auc_shuffled(density, fixated.reshape(shape), others.reshape(shape)) > 0.6


SQUARE, SOME = np.arange(12.0).reshape(3, 4), np.eye(3, 4, dtype=bool)
MISTAKES = {
    "another size": ((SQUARE, SOME.T), "fixations have shape (4, 3); expected (3, 4)"),
    "no fixation": ((SQUARE, ~np.ones((3, 4), bool)), "fixations are False everywhere"),
    "only fixations": ((SQUARE, np.ones((3, 4), bool)), "fixations are True everywhere"),
    "a density": ((SQUARE, 0.5 * SOME), "values other than 0 and 1"),
    "not finite": ((np.where(SOME, np.nan, 0), SOME), "saliency holds nan"),
    "axes": ((SQUARE[None], SOME[None]), "saliency has shape (1, 3, 4); expected [H, W]"),
    "empty": ((np.zeros((0, 4)), np.zeros((0, 4), bool)), "shape (0, 4)"),
    "words": (([["a"]], [[True]]), "expected an array of numbers"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_of_auc_judd_are_one_line(complains, case):
    arguments, message = MISTAKES[case]
    complains(lambda: auc_judd(*arguments), message)


def test_other_mistakes_are_one_line(complains):
    complains(lambda: auc_judd(SQUARE, SOME, jitter=-1), "jitter is -1")
    complains(lambda: auc_judd(SQUARE, SOME, seed=0.5), "seed is 0.5")
    complains(lambda: auc_shuffled(SQUARE, SOME, SQUARE[:2]), "others has shape (2, 4)")
    complains(lambda: auc_shuffled(SQUARE, SOME, 0 * SQUARE), "fixations of other images")
    complains(lambda: auc_shuffled(SQUARE, SOME, -SQUARE), "fixations of other images")
