"""ImageNet residual networks, post- and pre-activation: published sizes, units against NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpy_layers import relu
from numpy_residual import batch_norm, conv_of, images, random_variables
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.resnet import ResidualUnit, ResNet, UnitSettings
from adaptive_nets.models.resnet_v2 import PreActivationBottleneck, ResNetV2
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

PARAMS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
# GMACs to three digits: stride in the 3x3 convolution, and in the first 1x1.
GIGA_MACS = {18: (1.814,), 34: (3.664,), 50: (4.089, 3.858), 101: (7.801, 7.570)} | {
    152: (11.514, 11.282)
}


@pytest.mark.slow
@pytest.mark.parametrize("depth", PARAMS)
def test_published_sizes(depth):
    assert an.count_params(f"resnet{depth}") == PARAMS[depth]
    assert round(an.count_macs(f"resnet{depth}") / 1e9, 3) == GIGA_MACS[depth][0]
    if depth >= 50:
        conv1_bias = 64 if depth == 50 else 0
        assert an.count_params(f"resnet{depth}_caffe") == PARAMS[depth] + conv1_bias
        assert round(an.count_macs(f"resnet{depth}_caffe") / 1e9, 3) == GIGA_MACS[depth][1]


def test_parameters_of_resnet50_by_part():
    model = an.create_model("resnet50")
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, 32, 32, 3)))["params"]
    parts = dict.fromkeys(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"), 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        parts[path[0].key.split("_")[0]] += leaf.size
    assert list(parts.values()) == [
        9_408, 128, 215_808, 1_219_584, 7_098_368, 14_964_736, 2_049_000,
    ]  # fmt: skip


@pytest.mark.slow
# FLOPs, two per multiply-add, of the vanilla networks that adaptive computation starts from.
@pytest.mark.parametrize(
    ("name", "side", "flops", "digits"),
    [
        ("resnetv2_50", 224, 8.1784e9, 4),
        ("resnetv2_101", 224, 1.5603e10, 4),
        ("resnetv2_152", 224, 2.3027e10, 4),
        ("resnetv2_101", 256, 2.038e10, 3),
        ("resnetv2_101", 352, 3.852e10, 3),
        ("resnetv2_32_cifar10", 32, 137_725_184, 9),
        ("resnetv2_110_cifar10", 32, 505_775_360, 9),
    ],
)
def test_flops_of_vanilla_networks(name, side, flops, digits):
    counted = 2 * an.count_macs(name, input_shape=(side, side, 3))
    assert float(f"{counted:.{digits}e}") == flops


def test_shortcuts_without_weights_and_with_more():
    """Options A and C of a ResNet-34: no projection at all, and one in each of sixteen units."""
    a = an.count_params("resnet34", shortcut="A")
    b = an.count_params("resnet34")
    c = an.count_params("resnet34", shortcut="C")
    strided = sum(w // 2 * w + 2 * w for w in (128, 256, 512))
    counts = {64: 3, 128: 3, 256: 5, 512: 2}
    identity = sum(units * (w * w + 2 * w) for w, units in counts.items())
    assert (b - a, c - b) == (strided, identity)
    assert an.count_params("plain34") == a


UNITS = {
    "basic": ((1, 1), 8, {"bottleneck": False}),
    "basic/2": ((2, 2), 6, {"bottleneck": False}),
    "basic/2 A": ((2, 2), 11, {"bottleneck": False, "shortcut": "A"}),
    "plain/2": ((2, 2), 6, {"bottleneck": False, "shortcut": "none"}),
    "bottleneck": ((1, 1), 2, {}),
    "bottleneck C": ((1, 1), 2, {"shortcut": "C"}),
    "bottleneck 3x3/2": ((2, 2), 4, {"stride_position": "3x3"}),
    "bottleneck 1x1/2": ((2, 2), 4, {"stride_position": "1x1"}),
}


@pytest.mark.parametrize("name", UNITS)
def test_units(name):
    strides, width, options = UNITS[name]
    unit = ResidualUnit(width, strides, UnitSettings(**options))
    x = images(2, 7, 6, 8)
    variables = random_variables(unit, x)
    actual, train = jax.jit(
        lambda v, x: (unit.apply(v, x), unit.apply(v, x, True, mutable=["batch_stats"])[0])
    )(variables, x)
    stride = strides[0]

    def convolved(y, number, *, of=1):
        return conv_of(y, variables, f"conv{number}", stride=of)

    for output, training in ((actual, False), (train, True)):

        def norm(y, name, training=training):
            return batch_norm(y, variables, name, train=training)

        y = np.asarray(x, np.float64)
        if options.get("bottleneck", True):
            first, second = (stride, 1) if options.get("stride_position") == "1x1" else (1, stride)
            y = relu(norm(convolved(y, 1, of=first), "bn1"))
            y = relu(norm(convolved(y, 2, of=second), "bn2"))
            y = norm(convolved(y, 3), "bn3")
        else:
            y = relu(norm(convolved(y, 1, of=stride), "bn1"))
            y = norm(convolved(y, 2), "bn2")
        kind = options.get("shortcut", "B")
        shortcut = np.asarray(x, np.float64)
        if kind == "none":
            shortcut = 0.0
        elif kind == "A":
            shortcut = np.pad(shortcut[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, 3)))
        elif "downsample_0" in variables["params"]:
            shortcut = norm(
                conv_of(shortcut, variables, "downsample_0", stride=stride), "downsample_1"
            )
        close(output, relu(y + shortcut), terms=500)


@pytest.mark.parametrize(("strides", "width"), [((1, 1), 2), ((1, 1), 3), ((2, 2), 2)])
def test_pre_activation_unit(strides, width):
    unit, x = PreActivationBottleneck(width, strides), images(2, 5, 6, 8)
    variables = random_variables(unit, x)
    inputs = np.asarray(x, np.float64)
    activated = relu(batch_norm(inputs, variables, "norm1"))
    y = conv_of(activated, variables, "conv1")
    y = conv_of(relu(batch_norm(y, variables, "norm2")), variables, "conv2", stride=strides[0])
    y = conv_of(relu(batch_norm(y, variables, "norm3")), variables, "conv3")
    projected = strides != (1, 1) or width != 2
    assert ("downsample_conv" in variables["params"]) == projected
    if projected:
        inputs = conv_of(activated, variables, "downsample_conv", stride=strides[0])
    close(jax.jit(unit.apply)(variables, x), inputs + y, terms=200)


@pytest.mark.parametrize(
    ("model", "sides"),
    [
        (ResNet((1, 1, 1, 1), 7, widths=(2, 2, 2, 2)), (56, 28, 14, 7)),
        (ResNet((1, 1, 1, 1), 7, widths=(2, 2, 2, 2), pool_ceil=True), (56, 28, 14, 7)),
        (ResNetV2((1, 1, 1, 1), 7, widths=(2, 2, 2, 2)), (56, 28, 14, 7)),
    ],
)
def test_sides_of_the_stages(model, sides):
    _, state = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0),
            images(1, 224, 224, 3),
            capture_intermediates=True,
            mutable=["params", "batch_stats", "intermediates"],
        )
    )
    units = [
        value["__call__"][0].shape[1]
        for name, value in state["intermediates"].items()
        if name.startswith(("layer", "stages"))
    ]
    assert tuple(units) == sides


@pytest.mark.parametrize("option", [{"stride_position": "2x2"}, {"shortcut": "D"}])
def test_unknown_settings_are_named(option):
    (name,) = option
    with pytest.raises(UserError, match=f"{name} is '.*'; expected one of"):
        an.create_model("resnet50", **option)


def test_aliases():
    assert an.create_model("resnet50_v1_original") == an.create_model("resnet50_caffe")
    assert an.create_model("resnet101_v2") == an.create_model("resnetv2_101")
    assert an.create_model("resnetv2_50").num_classes == 1001
