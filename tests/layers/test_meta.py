"""The Meta layer against its definition, the Kronecker product and its parts taken one by one."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.layers import GroupedDense, Meta
from adaptive_nets.layers.meta import meta
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
SIZES = pytest.mark.parametrize(("inputs", "outputs", "size"), [(2, 1, 3), (4, 8, 4), (3, 5, 1)])


@SIZES
def test_whole_groups_are_scaled_and_summed(inputs, outputs, size, rng):
    x = rng.normal(size=(2, 3, 5, inputs * size))
    weight = rng.normal(size=(inputs, outputs))
    groups = [x[..., n * size : (n + 1) * size] for n in range(inputs)]
    expected = np.concatenate(
        [sum(weight[n, m] * groups[n] for n in range(inputs)) for m in range(outputs)], axis=-1
    )
    close(meta(jnp.float32(x), jnp.float32(weight)), expected, terms=inputs)


@SIZES
def test_is_the_convolution_by_the_kronecker_product(inputs, outputs, size, rng, key):
    x = jnp.float32(rng.normal(size=(2, 3, 5, inputs * size)))
    layer = Meta(inputs, outputs)
    variables = layer.init(key, x)
    weight = np.asarray(variables["params"]["weight"], np.float64)
    assert weight.shape == (inputs, outputs)
    kernel = np.kron(weight.T, np.eye(size)).T
    conv = nn.Conv(outputs * size, (1, 1), use_bias=False)
    expected = conv.apply({"params": {"kernel": jnp.float32(kernel)[None, None]}}, x)
    close(layer.apply(variables, x), expected, terms=inputs)


def test_only_the_scaled_start_keeps_variance(key):
    x = jax.random.normal(key, (2, 64))
    for meta_init, deviation in (("normal", 1.0), ("softmax", 1.0), ("scaled", 1 / 8)):
        layer = Meta(64, 50, meta_init)
        weight = layer.init(key, x)["params"]["weight"]
        assert float(jnp.std(weight)) == pytest.approx(deviation, rel=0.05)


def test_softmax_normalises_what_an_input_group_gives_away(key):
    x = jax.random.normal(key, (3, 12))
    layer = Meta(4, 6, "softmax")
    variables = layer.init(key, x)
    weight = np.exp(np.asarray(variables["params"]["weight"], np.float64))
    weight /= weight.sum(axis=1, keepdims=True)
    close(layer.apply(variables, x), meta(x, jnp.float32(weight)), terms=10)
    # Each input group is shared out whole, so sums over groups stay.
    total = layer.apply(variables, x).reshape(3, 6, 3).sum(axis=1)
    close(total, x.reshape(3, 4, 3).sum(axis=1), terms=30)


@pytest.mark.parametrize("layer", [Meta(5, 2), GroupedDense(5, 2), Meta(0, 1)])
def test_groups_that_do_not_divide_the_channels(layer, key):
    with pytest.raises(UserError, match=r"groups [05] must divide the number of channels, 12"):
        layer.init(key, jnp.ones((2, 12)))


def test_an_unknown_start(key):
    with pytest.raises(UserError, match="meta_init 'uniform' is unknown; expected one of normal"):
        Meta(2, 2, "uniform").init(key, jnp.ones((2, 12)))


def test_grouped_dense_is_a_dense_layer_for_each_group(key):
    x = jax.random.normal(key, (3, 12))
    layer = GroupedDense(4, 5)
    params = layer.init(key, x)["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "kernel": (4, 3, 5),
        "bias": (4, 5),
    }
    expected = np.concatenate(
        [
            np.asarray(x, np.float64)[:, 3 * g : 3 * g + 3] @ np.asarray(params["kernel"][g])
            + np.asarray(params["bias"][g])
            for g in range(4)
        ],
        axis=1,
    )
    close(layer.apply({"params": params}, x), expected, terms=3)
    assert np.max(np.abs(params["kernel"])) <= 3**-0.5


@pytest.mark.parametrize("layer", [Meta(4, 2), GroupedDense(4, 2)])
def test_low_precision_keeps_float32_parameters(layer, key):
    x = jax.random.normal(key, (2, 12))
    variables = layer.init(key, x)
    low = layer.clone(dtype=jnp.bfloat16).apply(variables, x)
    assert low.dtype == jnp.bfloat16
    close(low, layer.apply(variables, x), terms=12, dtype=jnp.bfloat16)
