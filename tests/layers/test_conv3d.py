"""Channels as volumes: both forms against sums written out, and against the 2-D convolution."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.layers import Conv3d, channels_to_depth, depth_to_channels
from adaptive_nets.layers.conv3d import text_depth
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def convolve_volumes(volumes, kernel, bias, pad_depth):
    """float64; volumes [N, g, D, H, W], kernel [u, 3, 3, g, s] -> [N, s, D', H, W]."""
    n, _, depth, height, width = volumes.shape
    size = kernel.shape[0]
    padded = np.pad(volumes, ((0, 0), (0, 0), (pad_depth, pad_depth), (1, 1), (1, 1)))
    made = depth + 2 * pad_depth - size + 1
    out = np.zeros((n, kernel.shape[-1], made, height, width))
    for a in range(made):
        for i in range(height):
            for j in range(width):
                window = padded[:, :, a : a + size, i : i + 3, j : j + 3]
                out[:, :, a, i, j] = np.einsum("ngkij,kijgs->ns", window, kernel)
    return out + bias[None, :, None, None, None]


def made(layer, shape, key):
    x = jax.random.normal(key, shape)
    params = layer.init(key, x)["params"]
    params["conv"]["bias"] = jax.random.normal(key, params["conv"]["bias"].shape)
    wide = {name: np.asarray(leaf, np.float64) for name, leaf in params["conv"].items()}
    return x, params, wide


@pytest.mark.parametrize(("groups", "filters", "channels"), [(1, 2, 6), (2, 3, 8), (4, 4, 4)])
def test_code_form(groups, filters, channels, key):
    layer = Conv3d(filters, groups=groups)
    x, params, wide = made(layer, (2, 5, 4, channels), key)
    depth = channels // groups
    assert sum(p.size for p in wide.values()) == (27 * groups + 1) * filters
    # Channels first, a view as groups x depth.
    volumes = np.moveaxis(np.asarray(x, np.float64), 3, 1).reshape(2, groups, depth, 5, 4)
    maps = convolve_volumes(volumes, wide["kernel"], wide["bias"], 1)
    assert maps.shape == (2, filters, depth, 5, 4)
    expected = np.moveaxis(maps.reshape(2, filters * depth, 5, 4), 1, 3)
    actual = depth_to_channels(layer.apply({"params": params}, x))
    close(actual, expected, terms=27 * groups)


@pytest.mark.parametrize(("filters", "depth"), [(2, 1), (3, 3), (6, 5), (12, 6)])
def test_text_form(filters, depth, key):
    layer = Conv3d(filters, form="text", maps=12)
    x, params, wide = made(layer, (2, 4, 5, 6), key)
    assert wide["kernel"].shape == (depth, 3, 3, 1, filters)
    volumes = np.moveaxis(np.asarray(x, np.float64), 3, 1)[:, None]
    maps = convolve_volumes(volumes, wide["kernel"], wide["bias"], 0)
    expected = np.moveaxis(maps.reshape(2, 12, 4, 5), 1, 3)
    actual = depth_to_channels(layer.apply({"params": params}, x))
    close(actual, expected, terms=9 * depth)


def test_text_form_with_filters_as_deep_as_the_channels_is_the_2d_convolution(key):
    layer = Conv3d(7, form="text", maps=7)
    x, params, _ = made(layer, (2, 5, 4, 3), key)
    kernel = jnp.transpose(params["conv"]["kernel"][:, :, :, 0], (1, 2, 0, 3))
    plain = nn.Conv(7, (3, 3)).apply(
        {"params": {"kernel": kernel, "bias": params["conv"]["bias"]}}, x
    )
    close(depth_to_channels(layer.apply({"params": params}, x)), plain, terms=27)


def test_views_keep_the_order_of_channels(rng):
    x = rng.normal(size=(2, 3, 4, 12))
    volumes = channels_to_depth(jnp.asarray(x), groups=4)
    assert volumes.shape == (2, 3, 3, 4, 4)
    for group in range(4):
        for depth in range(3):
            expected = np.float32(x[..., 3 * group + depth])
            np.testing.assert_array_equal(volumes[:, depth, :, :, group], expected)
    np.testing.assert_array_equal(depth_to_channels(volumes), np.float32(x))


@pytest.mark.parametrize(("filters", "depth"), [(2, 1), (4, 9), (8, 13), (16, 15), (32, 16)])
def test_depth_of_the_filters_in_the_article(filters, depth):
    assert text_depth(16, 32, filters) == depth


@pytest.mark.parametrize("filters", [0, 1, 3, 33, 64])
def test_filters_that_cannot_make_the_maps(filters):
    with pytest.raises(UserError, match=f"filters {filters} cannot make 32 maps of 16"):
        text_depth(16, 32, filters)


def test_bad_groups_and_form(key):
    x = jnp.ones((1, 4, 4, 6))
    with pytest.raises(UserError, match="groups 4 must divide the number of channels, 6"):
        Conv3d(2, groups=4).init(key, x)
    with pytest.raises(UserError, match="form 'prose' is unknown; expected 'code' or 'text'"):
        Conv3d(2, form="prose").init(key, x)
