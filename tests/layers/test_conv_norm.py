"""Convolution with batch normalisation against NumPy in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, relu
from numpy_residual import batch_norm, images, random_variables
from tolerances import close

from adaptive_nets.layers import ConvNorm
from adaptive_nets.layers.conv_norm import HE_FAN_OUT, same_padding

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("options", "oracle", "epsilon"),
    [
        ({"kernel_size": (3, 3)}, {"pad": 1}, 1e-5),
        ({"kernel_size": (7, 7), "strides": (2, 2)}, {"pad": 3, "stride": 2}, 1e-5),
        ({"kernel_size": (1, 1), "strides": (2, 2), "activation": False}, {"stride": 2}, 1e-5),
        ({"kernel_size": (3, 3), "groups": 2, "epsilon": 0.1}, {"pad": 1, "groups": 2}, 0.1),
        ({"kernel_size": (3, 3), "padding": "VALID", "use_bias": True, "affine": False}, {}, 1e-5),
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_values(options, oracle, epsilon, train):
    layer, x = ConvNorm(6, **options), images(3, 9, 8, 4)
    variables = random_variables(layer, x)
    assert ("bias" in variables["params"]["conv"]) == options.get("use_bias", False)
    assert ("bn" in variables["params"]) == options.get("affine", True)
    weights = variables["params"]["conv"]
    expected = conv(x, weights["kernel"], weights.get("bias"), **oracle)
    expected = batch_norm(expected, variables, "bn", epsilon=epsilon, train=train)
    if options.get("activation", True):
        expected = relu(expected)
    apply = jax.jit(lambda v, x: layer.apply(v, x, train, mutable=["batch_stats"])[0])
    actual = apply(variables, x)
    close(actual, expected, terms=200)


def test_running_statistics_keep_nine_tenths():
    layer, x = ConvNorm(5, (3, 3)), images(2, 5, 7, 3)
    variables = random_variables(layer, x)
    apply = jax.jit(lambda v, x: layer.apply(v, x, True, mutable=["batch_stats"])[1])
    mutated = apply(variables, x)
    y = conv(x, variables["params"]["conv"]["kernel"], pad=1)
    old, new = variables["batch_stats"]["bn"], mutated["batch_stats"]["bn"]
    close(
        new["mean"], 0.9 * np.asarray(old["mean"], np.float64) + 0.1 * y.mean((0, 1, 2)), terms=99
    )
    close(new["var"], 0.9 * np.asarray(old["var"], np.float64) + 0.1 * y.var((0, 1, 2)), terms=99)


def test_low_precision_has_float32_parameters_and_statistics():
    layer, x = ConvNorm(5, (3, 3), dtype=jnp.bfloat16), images(2, 5, 5, 3)
    output, variables = jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), x, True))
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_dropout_lies_before_the_normalisation(key):
    """A dropped value is the shift of its channel, not zero, and what stays is scaled up first."""
    layer, x = ConvNorm(4, (1, 1), dropout_rate=0.5, activation=False), images(4, 6, 6, 4)
    variables = random_variables(layer, x)
    variables["params"]["conv"]["kernel"] = jnp.eye(4)[None, None]

    def apply(variables, x):
        return layer.apply(variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"])

    y, _ = jax.jit(apply)(variables, x)
    # The zeros of dropout are one value per channel behind the normalisation.
    for channel in range(4):
        values, counts = np.unique(np.asarray(y)[..., channel], return_counts=True)
        zeros = counts.max()
        assert 40 < zeros < 104  # of 144, standard deviation 6
        kept = np.asarray(y)[..., channel] != values[counts.argmax()]
        dropped = np.where(kept, 2 * np.asarray(x, np.float64)[..., channel], 0.0)
        scale, shift = (variables["params"]["bn"][name][channel] for name in ("scale", "bias"))
        expected = (dropped - dropped.mean()) / np.sqrt(dropped.var() + 1e-5)
        close(np.asarray(y)[..., channel], expected * float(scale) + float(shift), terms=144)
    test_mode = jax.jit(lambda v, x: layer.apply(v, x, False))(variables, x)
    close(test_mode, batch_norm(np.asarray(x, np.float64), variables, "bn"), terms=4)


def test_initialisation_is_he_normal_over_the_fan_out(key):
    kernel = jax.jit(lambda key: HE_FAN_OUT(key, (3, 3, 16, 400)))(key)
    assert np.std(kernel) == pytest.approx((2 / (9 * 400)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("kernel", "padding"), [((1, 1), ((0, 0), (0, 0))), ((1, 7), ((0, 0), (3, 3)))]
)
def test_same_padding(kernel, padding):
    assert same_padding(kernel) == padding
