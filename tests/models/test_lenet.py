"""LeNet-5 of 1998 and its plainer forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, pool
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models import lenet
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

# The maps of S2 that each map of C3 reads, the columns of the paper's table.
TABLE = (
    *("012", "123", "234", "345", "045", "015"),
    *("0123", "1234", "2345", "0345", "0145", "0125"),
    *("0134", "1245", "0235", "012345"),
)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("lenet5", 61_706, 416_520),
        ("lenet5_partial", 60_806, 326_520),
        ("lenet5_1998", 60_000, 325_680),
    ],
)
def test_counts(name, params, macs):
    assert an.count_params(name) == params
    assert an.count_macs(name) == macs


def test_connections_of_the_paper():
    # Weights and biases of a layer times the positions they are used at.
    c3 = sum(25 * len(reads) + 1 for reads in lenet.C3_WIRING)
    layers = [156 * 28**2, 6 * 5 * 14**2, c3 * 10**2, 16 * 5 * 5**2, 48_120, 10_164, 840]
    assert layers == [122_304, 5_880, 151_600, 2_000, 48_120, 10_164, 840]
    assert sum(layers) == 340_908


def test_c3_reads_the_maps_of_the_table(rng):
    x = rng.normal(size=(2, 14, 14, 6)).astype(np.float32)
    layer = lenet.PartialC3()
    variables = layer.init(jax.random.key(0), jnp.asarray(x))
    params: Any = variables["params"]
    kernels = [
        params[k]["kernel"][..., i]
        for k in ("three", "four", "six")
        for i in range(params[k]["kernel"].shape[-1])
    ]
    maps: Any = layer.apply(variables, jnp.asarray(x))
    for i, (reads, kernel) in enumerate(zip(TABLE, kernels, strict=True)):
        inputs = x[..., [int(digit) for digit in reads]]
        close(maps[..., i], conv(inputs, kernel[..., None])[..., 0], terms=kernel.size)


def squash(x):
    return 1.7159 * np.tanh(2 * x / 3)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_forward_pass_in_float64(name, rng):
    x = rng.normal(size=(3, 32, 32, 1)).astype(np.float32)
    model = an.create_model(name)
    params = model.init(jax.random.key(0), jnp.asarray(x))["params"]
    # Biases and gains away from where they start, so that they are seen.
    params = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, params)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    old = name == "lenet5_1998"
    activation = squash if old else np.tanh

    def subsample(y, layer):
        if not old:
            return pool(y, 2, 2, reduce=np.mean)
        return squash(p[layer]["gain"] * pool(y, 2, 2, reduce=np.sum) + p[layer]["bias"])

    y = subsample(activation(conv(x, **p["c1"])), "s2")
    if old:
        parts = []
        for layer, reads in (("three", TABLE[:6]), ("four", TABLE[6:15]), ("six", TABLE[15:])):
            inputs = y[..., [int(digit) for maps in reads for digit in maps]]
            parts.append(conv(inputs, **p["c3"][layer], groups=len(reads)))
        y = np.concatenate(parts, axis=-1)
    else:
        y = conv(y, **p["c3"])
    y = subsample(activation(y), "s4")
    y = activation(conv(y, **p["c5"])).reshape(3, -1)
    y = activation(y @ p["f6"]["kernel"] + p["f6"]["bias"])
    if old:
        logits = -((y[:, None] - lenet.class_codes(10)) ** 2).sum(axis=-1)
    else:
        logits = y @ p["output"]["kernel"] + p["output"]["bias"]
    close(model.apply({"params": params}, jnp.asarray(x)), logits, terms=1000)


def test_subsampling_starts_as_an_average(rng):
    x = jnp.asarray(rng.normal(size=(2, 4, 6, 3)), jnp.float32)
    layer = lenet.Subsampling()
    pooled = layer.apply(layer.init(jax.random.key(0), x), x)
    close(pooled, pool(x, 2, 2, reduce=np.mean), terms=4)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_codes_are_quadratic_characters(num_classes):
    codes = lenet.class_codes(num_classes)
    assert codes.shape == (num_classes, 84)
    np.testing.assert_array_equal(np.abs(codes), 1)
    character = codes.ravel()  # of 1, 2, 3 ...
    for a in range(1, 13):
        assert character[a * a - 1] == 1
        for b in range(1, 13):
            assert character[a * b - 1] == character[a - 1] * character[b - 1]
    # Of two random codes 42 bits differ, give or take 4.6; fewer than 21 are 4.6 deviations.
    distances = np.sum(codes[:, None] != codes[None], axis=-1)
    assert np.min(distances[~np.eye(num_classes, dtype=bool)]) >= 21
    np.testing.assert_array_equal(codes[:2], lenet.class_codes(2))


def test_codes_are_not_trained():
    params = lenet.LeNet5(fixed_codes=True).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    assert set(params["params"]) == {"c1", "c3", "c5", "f6"}


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998"])
def test_images_of_another_size_are_named(name):
    with pytest.raises(UserError, match="images are 28x28; LeNet-5 expects 32x32, pad smaller"):
        an.create_model(name).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
