"""Pooling against loops over windows in float64."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close

from adaptive_nets.layers import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from adaptive_nets.layers.pooling import tiled_max_pool
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def windows(size, window, stride, pads, ceil_mode):
    """(first, last + 1) of every window along a side, in coordinates of the input."""
    starts = []
    start = -pads[0]
    while start + window <= size + pads[1]:
        starts.append(start)
        start += stride
    partly_filled = start - stride + window < size + pads[1] if starts else True
    if ceil_mode and partly_filled and start < size:
        starts.append(start)
    return [(s, s + window) for s in starts]


def brute_force(x, window, strides, pads, *, ceil_mode, reduce):
    """Calls reduce(values inside, positions inside the padded input) for every window."""
    x = np.asarray(x, np.float64)
    height, width = x.shape[1:3]
    rows = windows(height, window[0], strides[0], pads[0], ceil_mode)
    columns = windows(width, window[1], strides[1], pads[1], ceil_mode)
    result = np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            inside = x[:, max(top, 0) : bottom, max(left, 0) : right]
            padded = (min(bottom, height + pads[0][1]) - top) * (
                min(right, width + pads[1][1]) - left
            )
            result[:, i, j] = reduce(inside.reshape(x.shape[0], -1, x.shape[3]), padded)
    return result


REDUCTIONS = {
    "max": (max_pool, {}, lambda values, padded: values.max(axis=1)),
    "avg": (avg_pool, {}, lambda values, padded: values.sum(axis=1) / padded),
    "avg without padding": (
        avg_pool,
        {"count_include_pad": False},
        lambda values, padded: values.mean(axis=1),
    ),
}


@st.composite
def sides(draw):
    """Size, window, stride and padding along a side, such that a window fits."""
    window = draw(st.integers(1, 4))
    stride = draw(st.integers(1, 4))
    pads = (draw(st.integers(0, window - 1)), draw(st.integers(0, window - 1)))
    size = draw(st.integers(max(1, window - sum(pads)), 9))
    return size, window, stride, pads


@pytest.mark.parametrize("reduction", REDUCTIONS)
@settings(max_examples=20, deadline=None)
@given(vertical=sides(), horizontal=sides(), ceil_mode=st.booleans(), seed=st.integers(0, 99))
def test_equals_a_loop_over_windows(reduction, vertical, horizontal, ceil_mode, seed):
    (height, *rows), (width, *columns) = vertical, horizontal
    window, strides, pads = (tuple(pair) for pair in zip(rows, columns, strict=True))
    x = np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32) - 2
    pool, options, reduce = REDUCTIONS[reduction]
    pooled = pool(jnp.asarray(x), window, strides, pads, ceil_mode=ceil_mode, **options)
    expected = brute_force(x, window, strides, pads, ceil_mode=ceil_mode, reduce=reduce)
    close(pooled, expected, terms=math.prod(window))


@pytest.mark.parametrize(
    ("size", "window", "stride", "pads", "floor", "ceil"),
    [
        (112, 3, 2, (0, 0), 55, 56),
        (32, 3, 2, (0, 0), 15, 16),
        (16, 3, 2, (0, 0), 7, 8),
        (54, 3, 2, (0, 0), 26, 27),
        (55, 3, 2, (0, 0), 27, 27),
        (112, 3, 2, (1, 1), 56, 57),
        (2, 3, 2, (0, 0), None, 1),
        # The second window would start in the padding behind: it is left out.
        (2, 2, 3, (1, 1), 1, 1),
        (5, 2, 3, (1, 1), 2, 2),
        (3, 2, 3, (1, 1), 2, 2),
        (1, 2, 2, (1, 1), 1, 1),
    ],
)
def test_output_sizes(size, window, stride, pads, floor, ceil):
    image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    for pool in (max_pool, avg_pool):
        for ceil_mode, expected in ((False, floor), (True, ceil)):
            if expected is None:
                continue

            def apply(x, pool=pool, ceil_mode=ceil_mode):
                pairs = (pads, pads)
                return pool(x, (window,) * 2, (stride,) * 2, pairs, ceil_mode=ceil_mode)

            assert jax.eval_shape(apply, image).shape == (1, expected, expected, 1)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("shape", [(7, 5), (6, 9)])
def test_named_padding_is_flax_one(rng, padding, shape):
    x = jnp.asarray(rng.normal(size=(2, *shape, 3)), jnp.float32)
    for window, strides in [((2, 2), None), ((3, 2), (2, 1)), ((3, 3), (2, 2)), ((2, 3), None)]:
        arguments = (x, window, strides or window, padding)
        close(max_pool(x, window, strides, padding), nn.max_pool(*arguments))
        close(avg_pool(x, window, strides, padding), nn.avg_pool(*arguments), terms=9)
        excluded = nn.avg_pool(*arguments, count_include_pad=False)
        close(avg_pool(x, window, strides, padding, count_include_pad=False), excluded, terms=9)


def test_padding_never_wins_a_maximum():
    x = -jnp.ones((1, 3, 3, 1))
    pooled = max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)), ceil_mode=True)
    np.testing.assert_array_equal(pooled, -np.ones((1, 2, 2, 1)))


@pytest.mark.parametrize(
    ("window", "size", "ceil_mode"), [(2, 6, False), (3, 7, True), (2, 5, True)]
)
def test_the_gradient_of_a_mean_is_its_transpose(rng, window, size, ceil_mode):
    x = jnp.asarray(rng.normal(size=(1, size, size, 2)), jnp.float32)

    def pool(x):
        return avg_pool(x, (window, window), (2, 2), ceil_mode=ceil_mode)

    matrix = jax.jacobian(pool)(x).reshape(-1, x.size)
    close(matrix @ x.reshape(-1), pool(x).reshape(-1), terms=x.size)
    close(jnp.sum(matrix, axis=1), np.ones(matrix.shape[0]), terms=9)


def test_the_gradient_of_a_maximum_goes_to_it(rng):
    x = jnp.asarray(rng.permutation(50).reshape(1, 5, 5, 2), jnp.float32)
    for window, strides in (((5, 5), (5, 5)), ((3, 3), (2, 2))):
        pooled, pull = jax.vjp(lambda x, w=window, s=strides: max_pool(x, w, s), x)
        (gradient,) = pull(jnp.ones_like(pooled))
        counts = np.asarray([np.sum(np.asarray(pooled) == value) for value in np.ravel(x)])
        np.testing.assert_array_equal(np.ravel(gradient), counts)


@pytest.mark.parametrize(
    ("size", "output"),
    [((8, 8), (3, 3)), ((7, 5), (3, 2)), ((6, 6), (6, 6)), ((9, 6), (3, 2)), ((1, 4), (7, 6))],
)
def test_adaptive_windows(rng, size, output):
    x = rng.normal(size=(2, *size, 3))
    expected = np.zeros((2, *output, 3))
    for i, j in np.ndindex(*output):
        rows = slice(math.floor(i * size[0] / output[0]), math.ceil((i + 1) * size[0] / output[0]))
        columns = slice(
            math.floor(j * size[1] / output[1]), math.ceil((j + 1) * size[1] / output[1])
        )
        expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))
    close(adaptive_avg_pool(jnp.asarray(x, jnp.float32), output), expected, terms=9)


def test_eight_positions_onto_three():
    x = jnp.arange(8.0).reshape(1, 8, 1, 1)
    np.testing.assert_allclose(np.ravel(adaptive_avg_pool(x, (3, 1))), [1, 3.5, 6], rtol=1e-6)


def test_the_whole_map(rng):
    x = rng.normal(size=(3, 5, 7, 2))
    close(global_avg_pool(jnp.asarray(x, jnp.float32)), x.mean(axis=(1, 2)), terms=35)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: avg_pool(x, (16, 16)),
        lambda x: avg_pool(x, (31, 31), (1, 1)),
        lambda x: adaptive_avg_pool(x, (3, 5)),
        global_avg_pool,
    ],
)
def test_means_of_low_precision_are_summed_in_float32(pool):
    # Sums of 256 and more ones do not exist in bfloat16's eight bits.
    x = jnp.ones((1, 32, 32, 1), jnp.bfloat16)
    pooled = pool(x)
    assert pooled.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(pooled, np.float32), 1.0)


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize(
    ("padding", "message"),
    [
        ("full", 'padding is \'full\'; expected "SAME", "VALID",'),
        (1.5, "padding is 1.5; expected"),
        ((1, 1, 1), r"padding is \(1, 1, 1\); expected"),
        (((3, 0), (0, 0)), r"expected at least 0 and less than the window \(3, 3\)"),
        (((0, 0), (0, -1)), "integers >= 0"),
    ],
)
def test_wrong_padding_is_named(pool, padding, message):
    with pytest.raises(UserError, match=message):
        pool(jnp.zeros((1, 5, 5, 1)), (3, 3), (1, 1), padding)


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_a_window_that_does_not_fit_is_named(pool):
    with pytest.raises(UserError, match="window of 3 does not fit into 2 positions"):
        pool(jnp.zeros((1, 5, 2, 1)), (3, 3), (2, 2))


@pytest.mark.parametrize("window", [(2, 2), (3, 1), (1, 4)])
def test_tiled_pooling_is_max_pooling_and_has_its_gradient(window, rng):
    x = jnp.asarray(rng.permutation(2 * 6 * 8 * 3).reshape(2, 6, 8, 3), jnp.float32)

    def loss(pool):
        return lambda x: jnp.sum(jnp.sin(pool(x, window)))

    np.testing.assert_array_equal(tiled_max_pool(x, window), max_pool(x, window))
    found, expected = (jax.grad(loss(pool))(x) for pool in (tiled_max_pool, max_pool))
    np.testing.assert_allclose(found, expected)


def test_equal_entries_of_a_tile_share_the_gradient():
    found = jax.grad(lambda x: jnp.sum(tiled_max_pool(x, 2)))(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(found, np.full((1, 2, 2, 1), 0.25))


def test_windows_that_do_not_tile_are_refused():
    with pytest.raises(UserError, match=r"windows of \(2, 2\) do not tile 5x4 positions"):
        tiled_max_pool(jnp.ones((1, 5, 4, 1)), 2)
