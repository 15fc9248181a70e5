"""Fractional stride and smaller input against NumPy, and what they cannot be used for."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.perforation import grid_mask
from adaptive_nets.perforation.baselines import FractionalStride, SmallerInput, keep_grid
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


class Pooled(nn.Module):
    """Two convolutions, the second with groups and a stride, and global pooling."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), padding=1, name="first")(x))
        x = nn.Conv(6, (3, 3), (2, 2), "VALID", feature_group_count=2, name="second")(x)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Flat(nn.Module):
    """A network that depends on the size of its maps."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(2, (3, 3), name="first")(x)
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def convolve(x, w, b, stride, pad, groups):
    """Straight from the definition, float64."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    high, wide = ((x.shape[i] - 3) // stride + 1 for i in (1, 2))
    y = np.zeros((len(x), high, wide, w.shape[3]))
    per, out = x.shape[3] // groups, w.shape[3] // groups
    for i, j, g in itertools.product(range(high), range(wide), range(groups)):
        window = x[:, stride * i : stride * i + 3, stride * j : stride * j + 3]
        window = window[..., per * g : per * (g + 1)]
        kernel = w[..., out * g : out * (g + 1)]
        y[:, i, j, out * g : out * (g + 1)] = np.tensordot(window, kernel, 3)
    return y + b


def variables_of(model, images, rng):
    made = model.init(jax.random.key(0), images, train=False)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), made)


def test_a_fractional_stride_computes_a_grid_and_hands_on_a_smaller_map(key, rng):
    images = rng.normal(size=(2, 9, 11, 3)).astype(np.float32)
    model = Pooled()
    variables = variables_of(model, images, rng)
    wrapped = FractionalStride(model, key, {"first": 0.5, "second": 0.6})
    got = jax.jit(lambda v, x: wrapped.apply(v, x, train=False))(variables, images)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def grid(name, shape):
        return grid_mask(wrapped._keys[name], shape, wrapped.keeps[name])

    first, second, head = (params[name] for name in ("first", "second", "head"))
    y = convolve(images.astype(np.float64), first["kernel"], first["bias"], 1, 1, 1)
    y = np.maximum(np.asarray(keep_grid(y, grid("first", (9, 11)))), 0)
    # floor(sqrt(0.5) * 9) rows and floor(sqrt(0.5) * 11) columns.
    assert y.shape[1:3] == (6, 7)
    y = convolve(y, second["kernel"], second["bias"], 2, 0, 2)
    y = np.asarray(keep_grid(y, grid("second", y.shape[1:3])))
    assert y.shape[1:3] == (1, 2)
    expected = y.mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    # Taps times computed positions: 3 x 3 x 3 x 4 at 42, 3 x 3 x 2 x 6 at 2, and 6 x 3.
    assert wrapped.macs(variables, (9, 11, 3)) == 108 * 42 + 108 * 2 + 18


def test_keeping_everything_is_the_network_itself(key, rng):
    images = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    model = Pooled()
    variables = variables_of(model, images, rng)
    same = FractionalStride(model, key, {"first": 1.0, "second": 1.0})
    np.testing.assert_allclose(
        same.apply(variables, images, train=False),
        model.apply(variables, images, train=False),
        rtol=1e-5,
        atol=1e-5,
    )
    assert same.macs(variables, (8, 8, 3)) == FractionalStride(model, key, {}).macs(
        variables, (8, 8, 3)
    )


def test_the_positions_come_from_the_key(rng):
    images = rng.normal(size=(1, 9, 9, 3)).astype(np.float32)
    variables = variables_of(Pooled(), images, rng)

    def logits(seed):
        wrapped = FractionalStride(Pooled(), jax.random.key(seed), {"first": 0.3})
        return np.asarray(wrapped.apply(variables, images, train=False))

    np.testing.assert_array_equal(logits(1), logits(1))
    assert any(np.abs(logits(1) - logits(seed)).max() > 0 for seed in (2, 3, 4))


def test_a_smaller_input_averages_where_it_halves():
    images = np.zeros((1, 8, 8, 1), np.float32)
    images[0, :, 4:] = 1.0

    class Mean(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return x.mean(axis=(1, 2))

    smaller = SmallerInput(Mean(), (4, 2))
    assert smaller.resize(jnp.asarray(images)).shape == (1, 4, 2, 1)
    np.testing.assert_allclose(smaller.apply({}, images, train=False), [[0.5]], atol=1e-6)
    same = SmallerInput(Mean(), (8, 8)).resize(jnp.asarray(images))
    np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize("keep", [0.0, 1.5, -1.0, float("nan")])
def test_a_share_outside_0_to_1_is_refused(key, keep):
    with pytest.raises(UserError, match=r"keeps\['first'\] is .*; expected a fraction in \(0, 1\]"):
        FractionalStride(Pooled(), key, {"first": keep})


def test_mistakes_are_named(key, rng):
    images = rng.normal(size=(1, 8, 8, 3)).astype(np.float32)
    variables = variables_of(Pooled(), images, rng)
    with pytest.raises(UserError, match="layer 'third'; expected one of first, second"):
        FractionalStride(Pooled(), key, {"third": 0.5}).apply(variables, images)
    with pytest.raises(UserError, match=r"size is \(0, 4\); expected two positive"):
        SmallerInput(Pooled(), (0, 4))
    flat = variables_of(Flat(), images, rng)
    with pytest.raises(UserError, match="Flat does not take smaller maps between its layers"):
        FractionalStride(Flat(), key, {"first": 0.5}).macs(flat, (8, 8, 3))
