"""Modules of the Inception families against NumPy in float64, and the order of their branches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.models import bn_inception, inception_resnet, inception_v3, inception_v4
from adaptive_nets.models.bn_inception import BNInceptionModule
from adaptive_nets.models.inception_blocks import (
    InceptionModule,
    Pooling,
    ResidualInceptionModule,
    conv,
    join_branches,
)

pytestmark = pytest.mark.core
EPSILON = 1e-3
INCLUDED, EXCLUDED = Pooling("avg"), Pooling("avg", count_include_pad=False)


def drawn(module, shape, seed=0):
    """An input, and variables that leave no parameter at a neutral value."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return rng.normal(0, deviation, leaf.shape).astype(np.float32)
        if name in ("scale", "var", "gate_scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(0, 0.3, leaf.shape).astype(np.float32)

    return x, jax.tree_util.tree_map_with_path(draw, shapes)


def applied(module, variables, x):
    return np.asarray(jax.jit(module.apply)(variables, x))


def windows(x, size, stride, padding, fill=0.0):
    """float64[N, H', W', C, kh, kw]."""
    padded = np.pad(
        x.astype(np.float64), ((0, 0), *padding, (0, 0)), mode="constant", constant_values=fill
    )
    views = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))
    return views[:, ::stride, ::stride]


def convolved(x, kernel, stride=1, padding=((0, 0), (0, 0))):
    return np.tensordot(
        windows(x, kernel.shape[:2], stride, padding), kernel, axes=((4, 5, 3), (0, 1, 2))
    )


class Oracle:
    """Convolution, normalisation with running statistics, ReLU: by the names of a module."""

    def __init__(self, variables, names=("{}/conv", "{}/bn"), epsilon=EPSILON):
        self.variables, self.names, self.epsilon = variables, names, epsilon

    def leaf(self, collection, pattern, name, leaf):
        node = self.variables[collection]
        for part in pattern.format(name).split("/"):
            node = node[part]
        return np.asarray(node[leaf], np.float64)

    def __call__(self, x, *steps):
        """Every step: (name, (rows, columns) of padding on both sides, stride)."""
        for name, (rows, columns), stride in steps:
            kernel = self.leaf("params", self.names[0], name, "kernel")
            x = convolved(x, kernel, stride, ((rows, rows), (columns, columns)))
            x = x - self.leaf("batch_stats", self.names[1], name, "mean")
            x = x / np.sqrt(self.leaf("batch_stats", self.names[1], name, "var") + self.epsilon)
            x = x * self.leaf("params", self.names[1], name, "scale")
            x = np.maximum(x + self.leaf("params", self.names[1], name, "bias"), 0)
        return x


def plain(name):
    return name, (0, 0), 1


def average(x, include):
    sums = windows(x, (3, 3), 1, ((1, 1), (1, 1))).sum((4, 5))
    counts = windows(np.ones_like(x), (3, 3), 1, ((1, 1), (1, 1))).sum((4, 5))
    return sums / (9 if include else counts)


def maximum(x, stride, padding):
    return windows(x, (3, 3), stride, padding, fill=-np.inf).max((4, 5))


@pytest.mark.parametrize("include", [True, False])
def test_module_e_of_v3_and_what_its_average_counts(include):
    module = InceptionModule(inception_v3._module_e(INCLUDED if include else EXCLUDED))
    x, variables = drawn(module, (2, 4, 5, 6))
    run = Oracle(variables)
    second = run(x, plain("branch3x3_1"))
    third = run(x, plain("branch3x3dbl_1"), ("branch3x3dbl_2", (1, 1), 1))
    expected = [
        run(x, plain("branch1x1")),
        run(second, ("branch3x3_2a", (0, 1), 1)),
        run(second, ("branch3x3_2b", (1, 0), 1)),
        run(third, ("branch3x3dbl_3a", (0, 1), 1)),
        run(third, ("branch3x3dbl_3b", (1, 0), 1)),
        run(average(x, include), plain("branch_pool")),
    ]
    close(applied(module, variables, x), np.concatenate(expected, -1), terms=9 * 448)


def test_module_c_of_v4():
    module = InceptionModule(inception_v4._MODULE_C)
    x, variables = drawn(module, (1, 4, 3, 5))
    run = Oracle(variables)
    second = run(x, plain("branch1_0"))
    third = run(x, plain("branch2_0"), ("branch2_1", (1, 0), 1), ("branch2_2", (0, 1), 1))
    expected = [
        run(x, plain("branch0")),
        run(second, ("branch1_1a", (0, 1), 1)),
        run(second, ("branch1_1b", (1, 0), 1)),
        run(third, ("branch2_3a", (0, 1), 1)),
        run(third, ("branch2_3b", (1, 0), 1)),
        run(average(x, include=False), plain("branch3_1")),
    ]
    close(applied(module, variables, x), np.concatenate(expected, -1), terms=3 * 512)


def residual_on_17(run, x):
    tall = run(x, plain("branch1_0"), ("branch1_1", (0, 3), 1), ("branch1_2", (3, 0), 1))
    return [run(x, plain("branch0")), tall]


def residual_on_8(run, x):
    tall = run(x, plain("branch1_0"), ("branch1_1", (0, 1), 1), ("branch1_2", (1, 0), 1))
    return [run(x, plain("branch0")), tall]


def residual_on_35(run, x):
    second = run(x, plain("branch1_0"), ("branch1_1", (1, 1), 1))
    third = run(x, plain("branch2_0"), ("branch2_1", (1, 1), 1), ("branch2_2", (1, 1), 1))
    return [run(x, plain("branch0")), second, third]


@pytest.mark.parametrize(
    ("block", "branches"),
    [
        ("repeat_0", residual_on_35),
        ("repeat_1_0", residual_on_17),
        ("repeat_2_0", residual_on_8),
        ("block8", residual_on_8),
    ],
)
def test_residual_modules(block, branches):
    scale = {"repeat_0": 0.17, "repeat_1_0": 0.1, "repeat_2_0": 0.2, "block8": 1.0}[block]
    entry = next(b for b in inception_resnet._BLOCKS_V2 if b.name == block)
    module = ResidualInceptionModule(entry.branches, entry.scale, activation=entry.activation)
    x, variables = drawn(module, (2, 5, 4, 7))
    expansion = variables["params"]["conv2d"]
    joined = np.concatenate(branches(Oracle(variables), x), -1)
    expected = x + scale * (convolved(joined, expansion["kernel"]) + expansion["bias"])
    if block == "block8":
        assert expected.min() < -0.1
    else:
        expected = np.maximum(expected, 0)
    close(applied(module, variables, x), expected, terms=7 * 192)


SIDE_BY_SIDE = ("{}", "{}_bn")


def test_the_last_module_of_bn_inception_pools_by_maximum():
    branches = bn_inception._modules("caffe")["inception_5b"]
    module = BNInceptionModule(
        branches, use_conv_bias=False, epsilon=1e-5, gated=False, gate_scale=False
    )
    x, variables = drawn(module, (1, 5, 4, 6))
    run = Oracle(variables, SIDE_BY_SIDE, epsilon=1e-5)
    expected = [
        run(x, plain("1x1")),
        run(x, plain("3x3_reduce"), ("3x3", (1, 1), 1)),
        run(
            x,
            plain("double_3x3_reduce"),
            ("double_3x3_1", (1, 1), 1),
            ("double_3x3_2", (1, 1), 1),
        ),
        run(maximum(x, 1, ((1, 1), (1, 1))), plain("pool_proj")),
    ]
    close(applied(module, variables, x), np.concatenate(expected, -1), terms=9 * 224)


@pytest.mark.parametrize("gate_scale", [False, True])
def test_a_gate_acts_on_the_joined_branches(gate_scale):
    """On an even map, where the pooling's last window is only partly filled."""
    branches = bn_inception._modules("caffe")["inception_3c"]
    options = {"use_conv_bias": False, "epsilon": EPSILON}
    module = BNInceptionModule(branches, gated=True, gate_scale=gate_scale, **options)
    x, variables = drawn(module, (2, 6, 4, 32))
    run = Oracle(variables, SIDE_BY_SIDE)
    joined = np.concatenate(
        [
            run(x, plain("3x3_reduce"), ("3x3", (1, 1), 2)),
            run(
                x,
                plain("double_3x3_reduce"),
                ("double_3x3_1", (1, 1), 1),
                ("double_3x3_2", (1, 1), 2),
            ),
            maximum(x, 2, ((0, 1), (0, 1))),
        ],
        -1,
    )
    gate = variables["params"]["se"]
    hidden = joined.mean((1, 2)) @ gate["1x1_down"]["kernel"] + gate["1x1_down"]["bias"]
    assert hidden.shape == (2, (160 + 96 + 32) // 16)
    gates = np.maximum(hidden, 0) @ gate["1x1_up"]["kernel"] + gate["1x1_up"]["bias"]
    expected = joined / (1 + np.exp(-gates[:, None, None, :]))
    if gate_scale:
        expected = expected * variables["params"]["gate_scale"]
    close(applied(module, variables, x), expected, terms=9 * 128)


def test_biases_before_a_normalisation_cancel_in_training():
    branches = bn_inception._modules("caffe")["inception_3a"]
    options = {"epsilon": EPSILON, "gated": False, "gate_scale": False}
    biased = BNInceptionModule(branches, use_conv_bias=True, **options)
    unbiased = BNInceptionModule(branches, use_conv_bias=False, **options)
    x, variables = drawn(biased, (2, 5, 4, 6))
    params = {
        name: {"kernel": leaves["kernel"]} if "kernel" in leaves else leaves
        for name, leaves in variables["params"].items()
    }
    assert "bias" in variables["params"]["1x1"]

    def trained(module, params):
        def forward(params):
            all_of_it = {**variables, "params": params}
            return module.apply(all_of_it, x, train=True, mutable="batch_stats")[0]

        return jax.jit(forward)(params)

    expected = trained(unbiased, params)
    close(trained(biased, variables["params"]), expected, terms=9 * 96)


# Joined outputs from the first channel on: (last convolution of the branch, channels). None is the
# pooled input itself.
ORDERS = {
    "v3 A": (
        inception_v3._module_a(32, INCLUDED),
        [("branch1x1", 64), ("branch5x5_2", 64), ("branch3x3dbl_3", 96), ("branch_pool", 32)],
    ),
    "v3 B": (inception_v3._REDUCTION_B, [("branch3x3", 384), ("branch3x3dbl_3", 96), (None, 5)]),
    "v3 C": (
        inception_v3._module_c(128, INCLUDED),
        [("branch1x1", 192), ("branch7x7_3", 192), ("branch7x7dbl_5", 192), ("branch_pool", 192)],
    ),
    "v3 D": (
        inception_v3._REDUCTION_D,
        [("branch3x3_2", 320), ("branch7x7x3_4", 192), (None, 5)],
    ),
    "v4 3a": (inception_v4._MIXED_3A, [(None, 5), ("conv", 96)]),
    "v4 4a": (inception_v4._MIXED_4A, [("branch0_1", 96), ("branch1_3", 96)]),
    "v4 5a": (inception_v4._MIXED_5A, [("conv", 192), (None, 5)]),
    "v4 A": (
        inception_v4._MODULE_A,
        [("branch0", 96), ("branch1_1", 96), ("branch2_2", 96), ("branch3_1", 96)],
    ),
    "v4 reduction A": (
        inception_v4._REDUCTION_A,
        [("branch0", 384), ("branch1_2", 256), (None, 5)],
    ),
    "v4 B": (
        inception_v4._MODULE_B,
        [("branch0", 384), ("branch1_2", 256), ("branch2_4", 256), ("branch3_1", 128)],
    ),
    "v4 reduction B": (
        inception_v4._REDUCTION_B,
        [("branch0_1", 192), ("branch1_3", 320), (None, 5)],
    ),
    "residual v2 5b": (
        inception_resnet._MIXED_5B,
        [("branch0", 96), ("branch1_1", 64), ("branch2_2", 96), ("branch3_1", 64)],
    ),
    "residual v2 6a": (
        inception_resnet._BLOCKS_V2[11].branches,
        [("branch0", 384), ("branch1_2", 384), (None, 5)],
    ),
    "residual v2 7a": (
        inception_resnet._BLOCKS_V2[32].branches,
        [("branch0_1", 384), ("branch1_1", 288), ("branch2_2", 320), (None, 5)],
    ),
    "residual v1 6a": (
        inception_resnet._BLOCKS_V1[5].branches,
        [("branch0", 384), ("branch1_2", 256), (None, 5)],
    ),
    "residual v1 7a": (
        inception_resnet._BLOCKS_V1[16].branches,
        [("branch0_1", 384), ("branch1_1", 256), ("branch2_2", 256), (None, 5)],
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_branches(order):
    """The last normalisation of branch i is made the constant i + 1."""
    branches, expected = ORDERS[order]
    module = InceptionModule(branches)
    x, variables = drawn(module, (1, 7, 7, 5))
    for i, (name, width) in enumerate(expected):
        if name is not None:
            normalisation = variables["params"][name]["bn"]
            assert normalisation["scale"].shape == (width,)
            normalisation["scale"] = np.zeros(width, np.float32)
            normalisation["bias"] = np.full(width, i + 1, np.float32)
    y = applied(module, variables, x)
    assert y.shape[-1] == sum(width for _, width in expected)
    first = 0
    for i, (name, width) in enumerate(expected):
        part = y[..., first : first + width]
        pooled = maximum(x, 2, ((0, 0), (0, 0)))
        np.testing.assert_array_equal(part, pooled if name is None else np.full_like(part, i + 1))
        first += width


def test_lines_of_a_table():
    assert conv("a", 3).padding == ((0, 0), (0, 0))
    assert conv("a", 3, (1, 7)).padding == ((0, 0), (3, 3))
    assert conv("a", 3, (7, 1)).padding == ((3, 3), (0, 0))
    assert conv("a", 3, 3, stride=2).padding == ((1, 1), (1, 1))
    assert conv("a", 3, 5, valid=True).padding == ((0, 0), (0, 0))


def test_an_empty_branch_passes_its_input_on():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    apply = pytest.fail  # there is no convolution
    np.testing.assert_array_equal(join_branches(((), ()), x, apply), np.concatenate([x, x], -1))
