"""Nearest kept positions against brute force, SciPy's distances and counts of random ties."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import ndimage, stats

from adaptive_nets.perforation import nearest_kept
from adaptive_nets.runtime.errors import UserError
from kernels._common import nearest

pytestmark = pytest.mark.core

SHAPES = [(1, 1), (1, 9), (8, 1), (5, 8), (13, 6), (16, 16), (31, 33)]
DRAWS = 4000


def random_mask(rng, shape, keep):
    mask = rng.random(shape) < keep
    mask.flat[rng.integers(mask.size)] = True
    return mask


def nearest_sets(mask):
    """For each position the set of flat indices at the smallest squared distance, by all pairs."""
    kept = np.argwhere(mask)
    positions = np.argwhere(np.ones_like(mask))
    squares = ((positions[:, None, :] - kept[None, :, :]) ** 2).sum(-1)
    flat = kept[:, 0] * mask.shape[1] + kept[:, 1]
    return [set(flat[row == row.min()].tolist()) for row in squares]


@pytest.mark.parametrize("keep", [0.0, 0.03, 1 / 9, 0.5, 0.9, 1.1])
@pytest.mark.parametrize("shape", SHAPES)
def test_index_is_among_the_nearest(shape, keep, rng):
    mask = random_mask(rng, shape, keep)
    index = nearest.nearest_kept(mask, rng=rng)
    assert index.dtype == np.int32
    assert index.shape == shape
    allowed = nearest_sets(mask)
    assert all(i in options for i, options in zip(index.ravel().tolist(), allowed, strict=True))


@pytest.mark.parametrize(("shape", "keep"), [((112, 112), 1 / 9), ((97, 224), 1e-3)])
def test_distances_equal_scipys_on_large_maps(shape, keep, rng):
    mask = random_mask(rng, shape, keep)
    index = nearest.nearest_kept(mask, rng=rng)
    assert mask.flat[index].all()
    rows, columns = np.indices(shape)
    squares = (index // shape[1] - rows) ** 2 + (index % shape[1] - columns) ** 2
    distances = np.asarray(ndimage.distance_transform_edt(~mask))
    np.testing.assert_array_equal(squares, np.rint(distances**2))
    np.testing.assert_array_equal(index[mask], np.flatnonzero(mask))


def chi_square_of_draws(mask, rng):
    """Worst p-value over positions with ties, of equal frequencies over DRAWS maps."""
    maps = np.stack([nearest.nearest_kept(mask, rng=rng).ravel() for _ in range(DRAWS)])
    values, sizes = [], []
    for position, options in enumerate(nearest_sets(mask)):
        counts = np.array([(maps[:, position] == option).sum() for option in sorted(options)])
        assert counts.sum() == DRAWS
        if len(options) > 1:
            values.append(stats.chisquare(counts).pvalue)
            sizes.append(len(options))
    return np.array(values), sizes


def test_ties_are_uniform(rng):
    """A ring of twelve positions at distance 5 of the centre, and all lesser ties around it."""
    mask = np.zeros((11, 11), bool)
    rows, columns = np.indices(mask.shape) - 5
    mask[rows**2 + columns**2 == 25] = True
    assert mask.sum() == 12
    values, sizes = chi_square_of_draws(mask, rng)
    assert max(sizes) == 12
    assert {2, 3} & set(sizes)
    # Every position has a draw of its own, so with fair ties the p-values are uniform themselves.
    assert values.min() > 1e-3 / len(values)
    assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_ties_are_uniform_on_a_regular_grid(rng):
    mask = np.zeros((7, 9), bool)
    mask[::2, ::2] = True
    values, sizes = chi_square_of_draws(mask, rng)
    assert sorted(set(sizes)) == [2, 4]
    assert values.min() > 1e-3 / len(values)


def test_ties_of_different_positions_are_independent(rng):
    mask = np.zeros((1, 7), bool)
    mask[0, ::2] = True
    maps = np.stack([nearest.nearest_kept(mask, rng=rng)[0] for _ in range(DRAWS)])
    first, second = maps[:, 1] == 0, maps[:, 3] == 2
    table = [[np.sum(first & second), np.sum(first & ~second)]]
    table.append([np.sum(~first & second), np.sum(~first & ~second)])
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_map_is_determined_by_the_key(key):
    mask = np.zeros((12, 12), bool)
    mask[::2, ::3] = True
    first = nearest_kept(key, mask)
    assert first.dtype == np.int32
    np.testing.assert_array_equal(first, nearest_kept(key, mask))
    assert (first != nearest_kept(jax.random.fold_in(key, 1), mask)).any()
    np.testing.assert_array_equal(
        nearest_kept(jax.random.key(5), mask), nearest_kept(jax.random.PRNGKey(5), mask)
    )


def test_full_mask_is_the_identity(key):
    mask = np.ones((4, 7), bool)
    np.testing.assert_array_equal(nearest_kept(key, mask).ravel(), np.arange(28))


def test_one_kept_position_serves_all(key):
    mask = np.zeros((6, 5), bool)
    mask[4, 1] = True
    assert (nearest_kept(key, mask) == 21).all()


BAD_MASKS = {
    "empty": np.zeros((3, 3), bool),
    "no positions": np.zeros((0, 3), bool),
    "rank": np.ones((1, 3, 3), bool),
    "dtype": np.ones((3, 3), np.float32),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_mask_is_one_line(case, key, rng):
    with pytest.raises(UserError, match=r"^mask .*; expected .*") as error:
        nearest_kept(key, BAD_MASKS[case])
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^mask "):
        nearest.nearest_kept(BAD_MASKS[case], rng=rng)


@pytest.mark.parametrize("bad", [None, 3, "key", np.zeros(2)])
def test_bad_key_is_one_line(bad):
    with pytest.raises(UserError, match=r"^key is .*; expected one PRNG key"):
        nearest_kept(bad, np.ones((2, 2), bool))


def test_many_keys_or_a_traced_one_are_refused(key):
    mask = np.ones((2, 2), bool)
    with pytest.raises(UserError, match="array of keys"):
        nearest_kept(jax.random.split(key), mask)
    with pytest.raises(UserError, match="traced"):
        jax.jit(lambda k: nearest_kept(k, mask))(key)
