"""Networks of the Inception families: counts, sizes, names, and what differs in training."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import adaptive_nets as an
from adaptive_nets.layers.conv_norm import ConvNorm
from adaptive_nets.models import ModelOutput, model_entry
from adaptive_nets.models.bn_inception import BNInceptionModule
from adaptive_nets.models.inception_blocks import (
    InceptionModule,
    Pooling,
    ResidualInceptionModule,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
UNITS = (nn.Conv, ConvNorm, InceptionModule, ResidualInceptionModule, BNInceptionModule)
# One trace for both options of v3.
WITHOUT_HEAD = {"auxiliary_heads": False, "count_include_pad": False}


@dataclasses.dataclass
class Trace:
    """Shapes of a network's variables and of its modules' outputs, for one image of its size."""

    variables: Any
    logits: Any
    modules: dict[str, nn.Module]
    shapes: dict[str, tuple[int, ...]]
    macs: int

    def parameters(self, within: str = "") -> int:
        leaves = jax.tree_util.tree_leaves_with_path(self.variables["params"])
        return sum(
            math.prod(leaf.shape)
            for path, leaf in leaves
            if "/".join(entry.key for entry in path).startswith(within)
        )


@functools.cache
def traced(name: str, **overrides: Any) -> Trace:
    model = an.create_model(name, **overrides)
    modules, shapes, macs = {}, {}, []

    def record(call, args, kwargs, context):
        y = call(*args, **kwargs)
        module, path = context.module, "/".join(context.module.path)
        if context.method_name == "__call__" and path:
            modules[path] = module.clone(parent=None)
            if isinstance(module, UNITS):
                shapes[path] = y.shape[1:]
            if isinstance(module, nn.Conv) and "AuxLogits" not in path:
                macs.append(y[0].size * math.prod(module.kernel_size) * args[0].shape[-1])
            if isinstance(module, nn.Dense) and "AuxLogits" not in path:
                macs.append(y[0].size * args[0].shape[-1])
        return y

    def forward(x):
        with nn.intercept_methods(record):
            return model.init_with_output(jax.random.key(0), x, train=False)

    image = jax.ShapeDtypeStruct((1, *model_entry(name).input_shape), jnp.float32)
    logits, variables = jax.eval_shape(forward, image)
    return Trace(variables, logits, modules, shapes, sum(macs))


# Parameters and multiply-accumulates.
COUNTS = {
    "bn_inception": (11_295_240, 2_032_600_064),
    "se_bn_inception": (11_938_246, 2_033_239_424),
    "inception_v3": (27_161_264, 5_713_216_096),
    "inception_v4": (42_679_816, 12_253_974_624),
    "inception_resnet_v1": (22_756_328, 6_206_361_696),
    "inception_resnet_v2": (55_843_464, 13_155_794_016),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if "resnet" in n or n.startswith("se_") else ())
        for n in COUNTS
    ],
)
def test_counts(name):
    trace = traced(name)
    assert (trace.parameters(), trace.macs) == COUNTS[name]
    assert trace.logits.shape == (1, 1000)


def test_the_packages_own_count_of_macs():
    """Auxiliary classifiers do not run at test, so they do not count."""
    assert an.count_macs("inception_v3") == COUNTS["inception_v3"][1]


def test_convolution_biases():
    """A bias per output channel; they cost no multiply-accumulates."""
    without = traced("bn_inception", use_conv_bias=False)
    assert without.parameters() == 11_285_224
    assert without.macs == COUNTS["bn_inception"][1]
    convolutions = [m for m in without.modules.values() if isinstance(m, nn.Conv)]
    assert sum(m.features for m in convolutions) == 11_295_240 - 11_285_224
    assert len(convolutions) == 3 + 8 * 7 + 2 * 5


def test_gates():
    """C/16 hidden units, with biases, on every module's output."""
    widths = (256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024)
    weights = sum(2 * c * (c // 16) for c in widths)
    biases = sum(c + c // 16 for c in widths)
    published = an.count_params("se_bn_inception", gate_scale=False)
    assert published == 11_285_224 + weights + biases
    assert COUNTS["se_bn_inception"][1] - COUNTS["bn_inception"][1] == weights
    assert traced("se_bn_inception").parameters() == published + sum(widths) == 11_938_246


def test_the_auxiliary_head():
    trace = traced("inception_v3")
    assert trace.parameters("AuxLogits") == 3_326_696
    assert trace.shapes["AuxLogits/conv0"] == (5, 5, 128)
    assert trace.shapes["AuxLogits/conv1"] == (1, 1, 768)
    without = traced("inception_v3", **WITHOUT_HEAD)
    assert without.parameters() == 23_834_568
    assert without.macs == trace.macs


def test_keras_count():
    """Keras leaves out the scales of the normalisations and counts their running statistics."""
    variables = traced("inception_v3", **WITHOUT_HEAD).variables
    paths = jax.tree_util.tree_leaves_with_path(variables["params"])
    scales = sum(leaf.size for path, leaf in paths if path[-1].key == "scale")
    statistics = sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"]))
    assert (scales, statistics) == (17_216, 34_432)
    assert 23_834_568 - scales + statistics == 23_851_784


# Outputs (side, channels) of what the tables list.
SIZES = {
    "bn_inception": {
        "conv1_7x7_s2": (112, 64),
        "conv2_3x3": (56, 192),
        "inception_3a": (28, 256),
        "inception_3b": (28, 320),
        "inception_3c": (14, 576),
        "inception_4a": (14, 576),
        "inception_4b": (14, 576),
        "inception_4c": (14, 608),
        "inception_4d": (14, 608),
        "inception_4e": (7, 1056),
        "inception_5a": (7, 1024),
        "inception_5b": (7, 1024),
    },
    "inception_v3": {
        "Conv2d_1a_3x3": (149, 32),
        "Conv2d_2a_3x3": (147, 32),
        "Conv2d_2b_3x3": (147, 64),
        "Conv2d_3b_1x1": (73, 80),
        "Conv2d_4a_3x3": (71, 192),
        "Mixed_5b": (35, 256),
        "Mixed_5c": (35, 288),
        "Mixed_5d": (35, 288),
        "Mixed_6a": (17, 768),
        "Mixed_6e": (17, 768),
        "Mixed_7a": (8, 1280),
        "Mixed_7b": (8, 2048),
        "Mixed_7c": (8, 2048),
    },
    "inception_v4": {
        "features_2": (147, 64),
        "features_3": (73, 160),
        "features_4": (71, 192),
        "features_5": (35, 384),
        "features_9": (35, 384),
        "features_10": (17, 1024),
        "features_17": (17, 1024),
        "features_18": (8, 1536),
        "features_21": (8, 1536),
    },
    "inception_resnet_v1": {
        "conv2d_4b": (35, 256),
        "repeat_4": (35, 256),
        "mixed_6a": (17, 896),
        "repeat_1_9": (17, 896),
        "mixed_7a": (8, 1792),
        "repeat_2_4": (8, 1792),
    },
    "inception_resnet_v2": {
        "mixed_5b": (35, 320),
        "repeat_9": (35, 320),
        "mixed_6a": (17, 1088),
        "repeat_1_19": (17, 1088),
        "mixed_7a": (8, 2080),
        "repeat_2_8": (8, 2080),
        "block8": (8, 2080),
        "conv2d_7b": (8, 1536),
    },
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    shapes = traced(name).shapes
    assert {path: shapes[path] for path in SIZES[name]} == {
        path: (side, side, channels) for path, (side, channels) in SIZES[name].items()
    }


def test_widths_of_tf_slim():
    shapes = traced("bn_inception", widths="tf_slim").shapes
    names = ("inception_4b", "inception_4c", "inception_4d", "inception_4e", "inception_5b")
    assert [shapes[name][-1] for name in names] == [576, 576, 576, 1024, 1024]
    with pytest.raises(UserError, match="widths is 'slim'; expected caffe or tf_slim"):
        an.create_model("bn_inception", widths="slim")


@pytest.mark.parametrize("size", [(107, 224), (224, 208)])
def test_maps_that_cannot_be_halved_evenly(size):
    model = an.create_model("bn_inception")
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    with pytest.raises(UserError, match=f"images of {size[0]}x{size[1]}; expected multiples of 32"):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)


def test_residuals():
    """Scales and activations of the network as registered, in its order."""
    found = [
        (module.scale, module.activation)
        for module in traced("inception_resnet_v2").modules.values()
        if isinstance(module, ResidualInceptionModule)
    ]
    expected = [(0.17, True)] * 10 + [(0.1, True)] * 20 + [(0.2, True)] * 9 + [(1.0, False)]
    assert found == expected


@pytest.mark.parametrize("name", COUNTS)
def test_normalisation_and_dropout(name):
    modules = traced(name).modules.values()
    normalisations = [m for m in modules if isinstance(m, nn.BatchNorm)]
    assert {(m.epsilon, m.momentum) for m in normalisations} == {(1e-3, 0.9)}
    # Every convolution but the linear ones at the end of a residual.
    convolutions = sum(isinstance(m, nn.Conv) for m in modules)
    assert len(normalisations) == convolutions - sum(
        isinstance(m, ResidualInceptionModule) for m in modules
    )
    rates = [m.rate for m in modules if isinstance(m, nn.Dropout)]
    dropout = {"inception_v3": 0.5, "bn_inception": 0.0, "se_bn_inception": 0.0}
    assert rates == [dropout.get(name, 0.2)]


# Names that weights published for PyTorch map onto, joined by underscores, and kernels' shapes.
KERNELS = {
    "bn_inception": {
        "conv1_7x7_s2": (7, 7, 3, 64),
        "inception_4d_double_3x3_2": (3, 3, 192, 192),
        "inception_5b_pool_proj": (1, 1, 1024, 128),
        "last_linear": (1024, 1000),
    },
    "inception_v3": {
        "Conv2d_1a_3x3_conv": (3, 3, 3, 32),
        "Mixed_6c_branch7x7dbl_2_conv": (7, 1, 160, 160),
        "Mixed_7c_branch3x3dbl_3a_conv": (1, 3, 384, 384),
        "AuxLogits_conv1_conv": (5, 5, 128, 768),
        "fc": (2048, 1000),
    },
    "inception_v4": {
        "features_0_conv": (3, 3, 3, 32),
        "features_3_conv_conv": (3, 3, 64, 96),
        "features_6_branch3_1_conv": (1, 1, 384, 96),
        "features_21_branch2_3b_conv": (3, 1, 512, 256),
        "last_linear": (1536, 1000),
    },
    "inception_resnet_v2": {
        "mixed_5b_branch1_1_conv": (5, 5, 48, 64),
        "repeat_1_19_branch1_1_conv": (1, 7, 128, 160),
        "repeat_2_8_conv2d": (1, 1, 448, 2080),
        "block8_branch1_2_conv": (3, 1, 224, 256),
        "classif": (1536, 1000),
    },
}


@pytest.mark.parametrize("name", KERNELS)
def test_names(name):
    leaves = jax.tree_util.tree_leaves_with_path(traced(name).variables["params"])
    joined = ["_".join(entry.key for entry in path) for path, _ in leaves]
    assert len(set(joined)) == len(joined)
    shapes = dict(zip(joined, (leaf.shape for _, leaf in leaves), strict=True))
    for kernel, shape in KERNELS[name].items():
        assert shapes[f"{kernel}_kernel"] == shape


def test_auxiliary_logits_in_training_only():
    model = an.create_model("inception_v3")
    variables = traced("inception_v3").variables

    def trained(side):
        def forward(variables, x):
            rngs = {"dropout": jax.random.key(1)}
            options = {"train": True, "mutable": "batch_stats", "rngs": rngs}
            return an.full_output(model, variables, x, **options)[0]

        image = jax.ShapeDtypeStruct((3, side, side, 3), jnp.float32)
        return jax.eval_shape(forward, variables, image)

    output = trained(299)
    assert isinstance(output, ModelOutput)
    assert output.logits.shape == (3, 1000)
    assert [logits.shape for logits in output.auxiliary_logits] == [(3, 1000)]
    with pytest.raises(UserError, match="auxiliary head got a map of 5x5; expected 17x17"):
        trained(107)


def test_a_network_with_an_auxiliary_head_can_be_made_from_smaller_images():
    model = an.create_model("inception_v3")
    shapes = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((2, 107, 107, 3), jnp.float32),
    )
    assert shapes[0].shape == (2, 1000)
    assert shapes[1] == traced("inception_v3").variables


@pytest.mark.parametrize("counted", [True, False])
def test_average_pools_of_v3_count_their_padding_unless_told(counted):
    options = {} if counted else WITHOUT_HEAD
    modules = traced("inception_v3", **options).modules.values()
    tables = [m.branches for m in modules if isinstance(m, InceptionModule)]
    pools = [step for table in tables for branch in table for step in branch]
    averages = [p for p in pools if isinstance(p, Pooling) and p.kind == "avg"]
    assert [p.count_include_pad for p in averages] == [counted] * 9
