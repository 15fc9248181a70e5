"""Wide residual networks: published sizes, units against NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpy_layers import relu
from numpy_residual import batch_norm, conv_of, images, random_variables
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.wide_resnet import WideUnit
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("name", "projection", "zeropad"),
    [
        ("wrn40_1_cifar10", 563_930, 562_730),
        ("wrn40_2_cifar10", 2_243_546, 2_235_498),
        ("wrn28_10_cifar10", 36_479_194, None),
    ],
)
def test_published_sizes(name, projection, zeropad):
    assert an.count_params(name) == projection
    if zeropad:
        assert an.count_params(name, shortcut="zeropad", use_bias=True) == zeropad


@pytest.mark.parametrize(("depth", "widening"), [(16, 8), (40, 2)])
def test_macs_are_those_of_the_layers(depth, widening):
    macs, channels, side = 32 * 32 * 9 * 3 * 16, 16, 32
    for width in (16 * widening, 32 * widening, 64 * widening):
        side = side if width == 16 * widening else side // 2
        macs += side * side * (9 * channels * width + 9 * width * width + channels * width)
        macs += ((depth - 4) // 6 - 1) * side * side * 18 * width * width
        channels = width
    assert an.count_macs(f"wrn{depth}_{widening}_cifar100") == macs + channels * 100


@pytest.mark.parametrize("shortcut", ["projection", "zeropad"])
@pytest.mark.parametrize(("features", "stride"), [(4, 1), (6, 1), (6, 2)])
def test_units(shortcut, features, stride):
    bias = shortcut == "zeropad"
    unit = WideUnit(features, (stride, stride), shortcut, use_bias=bias)
    x = images(2, 5, 7, 4)
    variables = random_variables(unit, x)
    inputs = np.asarray(x, np.float64)
    activated = relu(batch_norm(inputs, variables, "bn1"))
    y = conv_of(activated, variables, "conv1", stride=stride, bias=bias)
    y = conv_of(relu(batch_norm(y, variables, "bn2")), variables, "conv2", bias=bias)
    changes = (features, stride) != (4, 1)
    assert ("convShortcut" in variables["params"]) == (changes and shortcut == "projection")
    if changes and shortcut == "projection":
        inputs = conv_of(activated, variables, "convShortcut", stride=stride)
    elif changes:
        inputs = np.pad(inputs[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, 2)))
    close(jax.jit(unit.apply)(variables, x), inputs + y, terms=200)


def test_dropout_lies_in_every_unit():
    model = an.create_model("wrn16_8_cifar10", widening=1, dropout_rate=0.3)
    x, key = images(2, 8, 8, 3), jax.random.key(0)
    jaxpr = jax.make_jaxpr(
        lambda: model.init_with_output({"params": key, "dropout": key}, x, train=True)[0]
    )()
    still = jax.make_jaxpr(lambda: model.init_with_output(key, x, train=False)[0])()
    # Six units; initialisation draws no uniform bits of bernoulli kind otherwise.
    assert str(jaxpr).count("_bernoulli") - str(still).count("_bernoulli") >= 6


@pytest.mark.parametrize("depth", [4, 27])
def test_depths_that_do_not_exist(depth):
    model = an.create_model("wrn28_10_cifar10", depth=depth)
    with pytest.raises(UserError, match=f"depth is {depth}; expected 6 N"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, 8, 8, 3)))


def test_an_unknown_shortcut_is_named():
    model = an.create_model("wrn16_8_cifar10", shortcut="A")
    with pytest.raises(UserError, match="shortcut is 'A'; expected"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, 8, 8, 3)))
