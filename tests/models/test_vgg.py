"""VGG for ImageNet and the VGG-like network for CIFAR."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_trace import by_type, dropout_rates, parameter_shapes, trace
from tolerances import close

import adaptive_nets as an
from adaptive_nets.layers import SparseConv, SparseDense
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
PARAMS = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}
PARAMS_BN = {11: 132_868_840, 13: 133_053_736, 16: 138_365_992, 19: 143_678_248}
# Published to four digits.
GIGA_MACS = {11: 7.609, 13: 11.308, 16: 15.470, 19: 19.632}


def macs(depth):
    total, channels, side = 0, 3, 224
    for width, repeats in zip((64, 128, 256, 512, 512), STAGES[depth], strict=True):
        for _ in range(repeats):
            total += side * side * 9 * channels * width
            channels = width
        side //= 2
    return total + 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000


@pytest.mark.parametrize("depth", STAGES)
def test_counts(depth):
    plain, normed = f"vgg{depth}", f"vgg{depth}_bn"
    assert an.count_params(plain) == PARAMS[depth]
    assert an.count_params(normed) == PARAMS_BN[depth]
    assert an.count_macs(plain) == an.count_macs(normed) == macs(depth)
    assert round(macs(depth) / 1e9, 3) == GIGA_MACS[depth]


@pytest.mark.parametrize("normed", [False, True])
def test_torchvision_names(normed):
    model = an.create_model("vgg16_bn" if normed else "vgg16")
    places = {
        False: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        True: (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
    }[normed]
    expected = {f"features_{i}/{kind}" for i in places for kind in ("kernel", "bias")}
    expected |= {f"classifier_{i}/{kind}" for i in (0, 3, 6) for kind in ("kernel", "bias")}
    if normed:
        expected |= {f"features_{i + 1}/{kind}" for i in places for kind in ("scale", "bias")}
    assert set(parameter_shapes(model, (224, 224, 3))) == expected


def test_maps_of_vgg16_bn_and_dropout():
    model = an.create_model("vgg16_bn")
    calls, _ = trace(model, (224, 224, 3), train=True)
    assert [call.y[1:] for call in by_type(calls, nn.Conv)] == [
        *[(224, 224, 64)] * 2,
        *[(112, 112, 128)] * 2,
        *[(56, 56, 256)] * 3,
        *[(28, 28, 512)] * 3,
        *[(14, 14, 512)] * 3,
    ]
    assert [call.x[1] for call in by_type(calls, nn.Dense)] == [25_088, 4096, 4096]
    assert dropout_rates(calls) == [0.5, 0.5]
    assert [call.x for call in by_type(calls, nn.Dropout)] == [(1, 4096)] * 2
    assert {call.layer.epsilon for call in by_type(calls, nn.BatchNorm)} == {1e-5}
    calls, _ = trace(model, (96, 64, 3))
    assert by_type(calls, nn.Dense)[0].x == (1, 25_088)


@pytest.mark.parametrize(
    ("width", "weights"),
    [(0.25, 937_392), (0.5, 3_746_144), (1.0, 14_977_728), (1.5, 33_694_752)],
)
@pytest.mark.parametrize("name", ["vgg_cifar10", "vgg_cifar10_sparse_vd"])
def test_weights_of_the_cifar_network(name, width, weights):
    shapes = parameter_shapes(an.create_model(name, width=width), (32, 32, 3))
    kernels = [np.prod(shape) for key, shape in shapes.items() if key.endswith("/kernel")]
    assert sum(kernels) == weights
    assert len(kernels) == 15
    variances = [np.prod(shape) for key, shape in shapes.items() if key.endswith("/log_sigma2")]
    assert sum(variances) == (weights if name.endswith("sparse_vd") else 0)


def test_widths_are_truncated():
    calls, _ = trace(an.create_model("vgg_cifar10", width=0.3), (32, 32, 3))
    assert [call.y[-1] for call in by_type(calls, nn.Conv)] == [
        *[19] * 2,
        *[38] * 2,
        *[76] * 3,
        *[153] * 6,
    ]
    with pytest.raises(UserError, match=r"width is 0.01; expected at least 1/64"):
        an.create_model("vgg_cifar10", width=0.01)


def test_layers_of_the_cifar_network():
    calls, _ = trace(an.create_model("vgg_cifar10"), (32, 32, 3), train=True)
    sides = [call.y[1] for call in by_type(calls, nn.Conv)]
    assert sides == [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    drops = [(call.layer.rate, call.x[1:]) for call in by_type(calls, nn.Dropout)]
    assert drops == [
        (0.3, (32, 32, 64)),
        (0.4, (16, 16, 128)),
        *[(0.4, (8, 8, 256))] * 2,
        *[(0.4, (4, 4, 512))] * 2,
        *[(0.4, (2, 2, 512))] * 2,
        (0.5, (512,)),
    ]
    norms = by_type(calls, nn.BatchNorm)
    assert len(norms) == 14
    assert {call.layer.epsilon for call in norms} == {1e-3}


def test_every_layer_of_the_variational_network_is_variational():
    model = an.create_model("vgg_cifar10_sparse_vd", log_sigma2_init=-15.0)
    calls, _ = trace(model, (32, 32, 3), train=True)
    convolutions, dense = by_type(calls, SparseConv), by_type(calls, SparseDense)
    assert (len(convolutions), len(dense)) == (13, 2)
    assert not by_type(calls, nn.Conv) + by_type(calls, nn.Dense) + by_type(calls, nn.Dropout)
    for call in convolutions + dense:
        assert call.layer.log_sigma2_init == -15.0
        assert not call.layer.mask_in_training


def test_without_noise_the_variational_network_is_the_plain_one(rng):
    x = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    options = {"width": 0.0625, "num_classes": 7}
    plain = an.create_model("vgg_cifar10", **options)
    sparse = an.create_model("vgg_cifar10_sparse_vd", **options)
    shapes = jax.eval_shape(plain.init, jax.random.key(0), x)
    drawn = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(-0.5, 1, leaf.shape), jnp.float32), shapes
    )
    stats = jax.tree.map(jnp.abs, drawn["batch_stats"])
    params = {
        name: layer if "scale" in layer else {**layer, "log_sigma2": 0 * layer["kernel"] - 60}
        for name, layer in drawn["params"].items()
    }
    expected = jax.jit(plain.apply)({"params": drawn["params"], "batch_stats": stats}, x)
    actual = jax.jit(sparse.apply)({"params": params, "batch_stats": stats}, x)
    assert np.std(expected) > 0
    close(actual, expected, terms=1000)


def test_images_of_another_size_are_named():
    with pytest.raises(UserError, match="images are 28x28; this network expects 32x32"):
        an.create_model("vgg_cifar10").init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
