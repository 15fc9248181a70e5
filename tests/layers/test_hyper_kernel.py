"""Generated kernels: the formula, the tiling, the start, and one product whatever the batch."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.layers import GeneratedConv, HyperKernels, generate_kernels
from adaptive_nets.layers.hyper_kernel import tile_count, tile_kernels
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def test_kernels_are_the_formula(rng):
    embeddings, hidden, outputs, inputs, width = 3, 4, 5, 2, (3, 1)
    z = rng.normal(size=(embeddings, 6))
    w, b = rng.normal(size=(6, inputs, hidden)), rng.normal(size=(inputs, hidden))
    w_out = rng.normal(size=(hidden, *width, outputs))
    b_out = rng.normal(size=(*width, outputs))
    expected = np.zeros((embeddings, *width, inputs, outputs))
    for e in range(embeddings):
        for i in range(inputs):
            a = w[:, i].T @ z[e] + b[i]
            expected[e, :, :, i] = np.tensordot(a, w_out, 1) + b_out
    actual = generate_kernels(*map(jnp.float32, (z, w, b, w_out, b_out)))
    close(actual, expected, terms=24)


def test_tiles_cover_inputs_then_outputs(rng):
    tiles = rng.normal(size=(6, 3, 3, 4, 5)).astype(np.float32)
    assert tile_count(8, 15, (4, 5)) == 6
    whole = np.asarray(tile_kernels(jnp.asarray(tiles), 8))
    assert whole.shape == (3, 3, 8, 15)
    for row in range(2):
        for column in range(3):
            part = whole[:, :, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
            np.testing.assert_array_equal(part, tiles[3 * row + column])


@pytest.mark.parametrize("channels", [(8, 14), (9, 15)])
def test_channels_that_cannot_be_tiled(channels):
    with pytest.raises(UserError, match=f"{channels[0]} x {channels[1]} channels cannot be tiled"):
        tile_count(*channels, (4, 5))


LAYERS = ((4, 4), (4, 8), (8, 8), (8, 16))
COUNTS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def kernels():
    module = HyperKernels(LAYERS, (4, 4), (3, 3), 32)
    return (*module.init_with_output(jax.random.key(0)), module)


def test_each_layer_has_its_own_embeddings(kernels):
    made, variables, module = kernels
    assert [k.shape for k in made] == [(3, 3, *channels) for channels in LAYERS]
    params = variables["params"]
    assert params["embeddings"].shape == (15, 32)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert total == 15 * 32 + 32 * 33 * 4 + 3 * 4 * 3 * 33
    for layer, start in enumerate((0, 1, 3, 7)):
        rows = params["embeddings"].at[start].add(1.0)
        changed = module.apply({"params": {**params, "embeddings": rows}})
        same = [bool(np.array_equal(a, b)) for a, b in zip(made, changed, strict=True)]
        assert same == [i != layer for i in range(4)]


def test_kernels_start_with_about_hes_variance(kernels):
    spreads = []
    for seed in range(5):
        made = kernels[2].init_with_output(jax.random.key(seed))[0]
        spreads.append([float(jnp.mean(kernel**2)) for kernel in made])
    for (inputs, _), variance in zip(LAYERS, np.mean(spreads, axis=0), strict=True):
        assert variance == pytest.approx(2 / (9 * inputs), rel=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 2), "padding": ((1, 1), (1, 1))},
        {"feature_group_count": 2, "use_bias": False, "padding": "VALID"},
    ],
)
def test_a_given_kernel_is_used_as_a_convolution_uses_its_own(options, key):
    x = jax.random.normal(key, (2, 7, 6, 4))
    plain, given = nn.Conv(6, (3, 3), **options), GeneratedConv(6, (3, 3), **options)
    params = plain.init(key, x)["params"]
    if "bias" in params:
        params["bias"] = jax.random.normal(key, (6,))
    kernel = params["kernel"]
    rest = {"params": {k: v for k, v in params.items() if k != "kernel"}}
    assert set(given.init(key, x, kernel).get("params", {})) == set(rest["params"])
    expected = plain.apply({"params": params}, x)
    np.testing.assert_array_equal(given.apply(rest, x, kernel), expected)
    low = given.clone(dtype=jnp.bfloat16).apply(rest, x, kernel)
    assert low.dtype == jnp.bfloat16
    close(low, expected, terms=36, dtype=jnp.bfloat16)


def test_a_kernel_of_another_shape(key):
    with pytest.raises(
        ValueError, match=r"kernel has shape \(3, 3, 4, 5\); expected \(3, 3, 4, 6\)"
    ):
        GeneratedConv(6, (3, 3)).init(key, jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 4, 5)))
