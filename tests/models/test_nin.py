"""Network in network."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np
import pytest
from layer_trace import by_type, dropout_rates, parameter_shapes, trace
from numpy_layers import conv, pool, relu
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.nin import NetworkInNetwork

pytestmark = pytest.mark.core


def counts(units):
    """(parameters, MACs) of (kernel, widths, side of the output) for every unit."""
    params = macs = 0
    channels = 3
    for kernel, widths, side in units:
        for k, width in zip((kernel, 1, 1), widths, strict=True):
            params += (k * k * channels + 1) * width
            macs += side * side * k * k * channels * width
            channels = width
    return params, macs


@pytest.mark.parametrize(
    ("name", "params", "units"),
    [
        (
            "nin_cifar10",
            966_986,
            [(5, (192, 160, 96), 32), (5, (192, 192, 192), 16), (3, (192, 192, 10), 8)],
        ),
        (
            "nin_cifar100",
            984_356,
            [(5, (192, 160, 96), 32), (5, (192, 192, 192), 16), (3, (192, 192, 100), 8)],
        ),
        (
            "nin_svhn",
            None,
            [(5, (128, 96, 64), 32), (5, (320, 256, 128), 16), (5, (384, 256, 10), 8)],
        ),
        (
            "nin",
            7_595_176,
            [
                (11, (96, 96, 96), 54),
                (5, (256, 256, 256), 27),
                (3, (384, 384, 384), 13),
                (3, (1024, 1024, 1000), 6),
            ],
        ),
    ],
)
def test_counts(name, params, units):
    expected, macs = counts(units)
    assert expected == (params or expected)
    assert an.count_params(name) == expected
    assert an.count_macs(name) == macs


def test_published_macs():
    assert an.count_macs("nin_imagenet") == 1_100_188_800
    assert round(an.count_macs("nin_cifar10") / 1e6, 1) == 222.5
    assert round(an.count_macs("nin_cifar100") / 1e6, 1) == 223.6


@pytest.mark.parametrize(
    ("name", "side", "where"),
    [
        ("nin_cifar10", 32, [(16, 16, 96), (8, 8, 192)]),
        ("nin_svhn", 32, [(16, 16, 64), (8, 8, 128)]),
        ("nin_imagenet", 224, [(6, 6, 384)]),
    ],
)
def test_dropout_follows_pooling(name, side, where):
    calls, _ = trace(an.create_model(name), (side, side, 3), train=True)
    assert [call.x[1:] for call in by_type(calls, nn.Dropout)] == where
    assert set(dropout_rates(calls)) == {0.5}
    assert not by_type(calls, nn.Dense)


def test_names_of_the_authors_files():
    shapes = parameter_shapes(an.create_model("nin_imagenet"), (224, 224, 3))
    names = [f"conv{i}" for i in range(1, 5)] + [f"cccp{i}" for i in range(1, 9)]
    assert set(shapes) == {f"{name}/{kind}" for name in names for kind in ("kernel", "bias")}


def test_initial_values_of_the_cifar_file():
    model = an.create_model("nin_cifar10")
    image = np.zeros((1, 32, 32, 3), np.float32)
    for layer in jax.jit(model.init)(jax.random.key(0), image)["params"].values():
        kernel = np.asarray(layer["kernel"])
        # Four standard errors.
        assert abs(np.std(kernel) / 0.05 - 1) < 4 / np.sqrt(2 * kernel.size)
        np.testing.assert_array_equal(layer["bias"], 0)


@pytest.mark.parametrize("stride", [1, 4])
def test_forward_pass_in_float64(rng, stride):
    units = ((5, (6, 5, 4)), (3, (7, 8)))
    model = NetworkInNetwork(units, num_classes=3, first_stride=stride)
    x = rng.normal(size=(2, 22, 22, 3)).astype(np.float32)
    params = model.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p * 5, params)
    y = relu(conv(x, **params["conv1"], stride=stride, pad=2 if stride == 1 else 0))
    y = relu(conv(relu(conv(y, **params["cccp1"])), **params["cccp2"]))
    # 22 -> 11 at stride 1: the last window is two wide; 5 -> 2 at stride 4: all are whole.
    if stride == 1:
        y = np.pad(y, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    y = pool(y, 3, 2)
    assert y.shape[1] == (11 if stride == 1 else 2)
    y = relu(conv(y, **params["conv2"], pad=1))
    y = relu(conv(relu(conv(y, **params["cccp3"])), **params["cccp4"]))
    logits = y.mean(axis=(1, 2))
    assert np.any(logits > 0)
    close(model.apply({"params": params}, x), logits, terms=1000)


def test_logits_are_never_negative():
    model = NetworkInNetwork(((3, (4, 4)),), num_classes=50, dropout_after=())
    x = jax.random.normal(jax.random.key(0), (8, 6, 6, 3))
    logits = np.asarray(model.apply(model.init(jax.random.key(1), x), x))
    assert np.min(logits) >= 0
    assert np.max(logits) > 0
