"""Residual networks for 32x32 images: sizes, units and shortcuts, loops over identical units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, relu
from numpy_residual import batch_norm, conv_of, images, random_variables
from tolerances import close

import adaptive_nets as an
from adaptive_nets.layers.shortcut import average, pad_channels, subsample
from adaptive_nets.models.resnet_cifar import CifarResNet, CifarUnit
from adaptive_nets.models.resnet_v2_cifar import CifarResNetV2, PreActivationUnit
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

# Parameters with shortcuts A and B for ten classes, and with A for a hundred; MACs.
SIZES = {
    20: (269_722, 272_474, 275_572, 40_551_040),
    32: (464_154, 466_906, 470_004, 68_862_592),
    44: (658_586, 661_338, 664_436, 97_174_144),
    56: (853_018, 855_770, 858_868, 125_485_696),
    110: (1_727_962, 1_730_714, 1_733_812, 252_887_680),
    1202: (19_421_274, 19_424_026, 19_427_124, 2_829_238_912),
}


@pytest.mark.slow
@pytest.mark.parametrize("depth", SIZES)
def test_published_sizes(depth):
    a, b, hundred, macs = SIZES[depth]
    assert a == 97_216 * (depth - 2) // 6 - 21_926
    assert an.count_params(f"resnet{depth}_cifar10") == a
    assert an.count_macs(f"resnet{depth}_cifar10") == macs
    if depth < 110 or depth == 1202:  # the rest is the same arithmetic, and slow to trace
        assert an.count_params(f"resnet{depth}_cifar10", shortcut="B") == b
        assert an.count_params(f"resnet{depth}_cifar100") == hundred


def test_a_looped_network_has_the_same_cost():
    assert an.count_params("resnet44_cifar10", scan_units=True) == SIZES[44][0]
    assert an.count_macs("resnet44_cifar10", scan_units=True) == SIZES[44][3]


def unlooped(variables):
    """Variables of separate units as a looped network has them."""
    stages = {}
    for name, value in variables.items():
        stage, _, number = name.partition("_")
        looped = stage.startswith("layer") and number != "0"
        stages.setdefault(f"{stage}_rest" if looped else name, []).append(value)
    return {
        name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *units)
        if name.endswith("_rest")
        else units[0]
        for name, units in stages.items()
    }


@pytest.mark.slow
def test_a_looped_network_computes_the_same():
    options = {"widths": (3, 4, 5), "num_classes": 6}
    separate = CifarResNet((3, 2, 2), **options)
    looped = CifarResNet((3, 2, 2), scan_units=True, **options)
    x = images(3, 9, 8, 3)
    variables = random_variables(separate, x)
    stacked = {kind: unlooped(tree) for kind, tree in variables.items()}

    def run(model, variables):
        def loss(params):
            logits, mutated = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits**2), (logits, mutated["batch_stats"])

        gradient, (logits, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
        return model.apply(variables, x), logits, statistics, gradient

    one = jax.jit(lambda v: run(separate, v))(variables)
    two = jax.jit(lambda v: run(looped, v))(stacked)
    close(two[0], one[0], terms=1000)
    close(two[1], one[1], terms=1000)
    expected = unlooped(one[2]), unlooped(one[3])
    assert jax.tree.structure(two[2:]) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: close(a, b, terms=1000, gradient=True), two[2:], expected)


@pytest.mark.parametrize("shortcut", ["A", "B", "average"])
@pytest.mark.parametrize("bias", [False, True])
def test_unit_that_changes_shape(shortcut, bias):
    unit = CifarUnit(7, (2, 2), shortcut=shortcut, use_bias=bias)
    x = images(2, 6, 8, 4)
    variables = random_variables(unit, x)
    inputs = np.asarray(x, np.float64)
    y = conv_of(inputs, variables, "conv1", stride=2, bias=bias)
    y = conv_of(relu(batch_norm(y, variables, "bn1")), variables, "conv2", bias=bias)
    y = batch_norm(y, variables, "bn2")
    # Three channels are missing: one before, two after.
    padded = ((0, 0), (0, 0), (0, 0), (1, 2))
    if shortcut == "A":
        skip = np.pad(inputs[:, ::2, ::2], padded)
    elif shortcut == "average":
        skip = np.pad(inputs.reshape(2, 3, 2, 4, 2, 4).mean((2, 4)), padded)
    else:
        skip = conv_of(inputs, variables, "shortcut_0", stride=2, bias=bias)
        skip = batch_norm(skip, variables, "shortcut_1")
    close(jax.jit(unit.apply)(variables, x), relu(y + skip), terms=200)


def test_whole_network_of_one_unit_per_stage():
    model, x = CifarResNet((1, 1, 1), 5, widths=(2, 4, 6)), images(2, 9, 9, 3)
    variables = random_variables(model, x)
    y = conv(x, variables["params"]["conv1"]["kernel"], pad=1)
    y = relu(batch_norm(y, variables, "bn1"))
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        unit = {kind: tree[f"layer{stage}_0"] for kind, tree in variables.items()}
        z = relu(batch_norm(conv_of(y, unit, "conv1", stride=stride), unit, "bn1"))
        z = batch_norm(conv_of(z, unit, "conv2"), unit, "bn2")
        side = 0 if stage == 1 else 1
        y = np.pad(y[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (side, side)))
        y = relu(y + z)
    head = variables["params"]["linear"]
    logits = y.mean((1, 2)) @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"])
    close(jax.jit(model.apply)(variables, x), logits, terms=1000)


@pytest.mark.parametrize(
    ("features", "strides", "activate"), [(4, (1, 1), False), (4, (1, 1), True), (6, (2, 2), False)]
)
def test_pre_activation_unit(features, strides, activate):
    unit, x = PreActivationUnit(features, strides, activate), images(2, 6, 4, 4)
    variables = random_variables(unit, x)

    def activated(y, name):
        y = batch_norm(y, variables, name, epsilon=1e-3)
        return np.where(y > 0, y, 0.1 * y)

    inputs = np.asarray(x, np.float64)
    first = activated(inputs, "bn1")
    y = conv_of(first, variables, "conv1", stride=strides[0])
    y = conv_of(activated(y, "bn2"), variables, "conv2")
    skip = first if activate else inputs
    if strides == (2, 2):
        skip = skip.reshape(2, 3, 2, 2, 2, 4).mean((2, 4))
        skip = np.pad(skip, ((0, 0), (0, 0), (0, 0), (1, 1)))
    close(jax.jit(unit.apply)(variables, x), skip + y, terms=200)


def test_pre_activation_network_pools_before_it_normalises():
    model, x = CifarResNetV2((1, 1, 1), 5, widths=(2, 2, 4)), images(3, 8, 8, 3)
    variables = random_variables(model, x)
    logits, state = jax.jit(lambda v, x: model.apply(v, x, capture_intermediates=True))(
        variables, x
    )
    maps = np.asarray(state["intermediates"]["layer3_0"]["__call__"][0], np.float64)
    y = batch_norm(maps.mean((1, 2)), variables, "bn", epsilon=1e-3)
    head = variables["params"]["linear"]
    y = np.where(y > 0, y, 0.1 * y) @ np.asarray(head["kernel"], np.float64)
    close(logits, y + np.asarray(head["bias"], np.float64), terms=50)
    first = state["intermediates"]["layer1_0"]["__call__"][0]
    assert first.shape == (3, 8, 8, 2)


def test_zero_channels():
    x = jnp.ones((1, 1, 1, 2))
    np.testing.assert_array_equal(pad_channels(x, 5)[0, 0, 0], [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(pad_channels(x, 5, zeros="after")[0, 0, 0], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(pad_channels(x, 2), x)
    with pytest.raises(UserError, match="channels is 1; expected at least the input's 2"):
        pad_channels(x, 1)
    with pytest.raises(UserError, match="zeros is 'before'"):
        pad_channels(x, 3, zeros="before")  # pyright: ignore[reportArgumentType]


def test_odd_maps_have_the_size_of_a_strided_convolution():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    np.testing.assert_array_equal(subsample(x, (2, 2))[0, ..., 0], [[0, 2, 4], [10, 12, 14]])
    np.testing.assert_array_equal(average(x, (2, 2))[0, ..., 0], [[3, 5, 6.5], [10.5, 12.5, 14]])


@pytest.mark.parametrize("depth", [2, 21, 100])
def test_depths_that_do_not_exist(depth):
    with pytest.raises(UserError, match=f"depth is {depth}; expected 6 n"):
        an.create_model("resnet20_cifar10", depth=depth)


def test_an_unknown_shortcut_is_named():
    model = an.create_model("resnet20_cifar10", shortcut="C")
    with pytest.raises(UserError, match="shortcut is 'C'; expected"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, 8, 8, 3)))
