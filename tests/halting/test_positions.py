"""Dilated masks and groups of positions against SciPy and the paper's counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from tolerances import close

from adaptive_nets.halting import (
    count_latents,
    dilate,
    group_average,
    group_sizes,
    spread_groups,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (2, 7, 3), (2, 3, 9, 4)])
def test_dilation_equals_scipys(shape, rng):
    mask = rng.random(shape) < 0.15
    structure = np.ones((1,) * (len(shape) - 2) + (3, 3))
    expected = ndimage.binary_dilation(mask, structure)
    np.testing.assert_array_equal(dilate(jnp.asarray(mask)), expected)
    np.testing.assert_array_equal(jax.jit(dilate)(mask), expected)
    if len(shape) == 3:
        np.testing.assert_array_equal(jax.vmap(dilate)(mask), expected)


@pytest.mark.parametrize("bad", [np.ones((3, 3)), np.ones((3,), bool)])
def test_bad_mask_is_one_line(bad):
    with pytest.raises(UserError, match=r"^mask has shape .*; expected bool"):
        dilate(bad)


@pytest.mark.parametrize(
    ("groups", "latents"), [(1, 3), (2, 12), (4, 48), (8, 192), (16, 576), (32, 1344)]
)
def test_latents_of_the_papers_networks(groups, latents):
    assert count_latents([(32, 32), (16, 16), (8, 8)], groups) == latents


def test_group_average_and_its_spread(rng):
    x = rng.normal(size=(2, 4, 6, 3))
    expected = np.zeros((2, 2, 2, 3))
    for i in range(2):
        for j in range(2):
            expected[:, i, j] = x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean((1, 2))
    mean = group_average(jnp.asarray(x, jnp.float32), 2)
    close(mean, expected, terms=6)
    spread = np.asarray(spread_groups(mean, (4, 6)))
    assert spread.shape == (2, 4, 6, 3)
    for i in range(4):
        for j in range(6):
            np.testing.assert_array_equal(spread[:, i, j], mean[:, i // 2, j // 3])
    assert spread_groups(mean[..., 0], (8, 2)).shape == (2, 8, 2)


def test_groups_are_single_positions_on_small_maps(rng):
    x = jnp.asarray(rng.normal(size=(1, 3, 5, 2)), jnp.float32)
    assert group_sizes((3, 5), 8) == (3, 5)
    np.testing.assert_array_equal(group_average(x, 8), x)


def test_bad_groups_are_one_line():
    with pytest.raises(UserError, match="groups is 0; expected a positive integer"):
        group_sizes((8, 8), 0)
    with pytest.raises(UserError, match="groups is 3; expected a divisor of both sides of a 8x8"):
        group_average(jnp.zeros((1, 8, 8, 1)), 3)
    with pytest.raises(UserError, match=r"shape is \(5, 4\); expected multiples of \(2, 2\)"):
        spread_groups(jnp.zeros((1, 2, 2)), (5, 4))
