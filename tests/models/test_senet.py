"""Squeeze-and-excitation networks: published sizes, units against NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from layer_trace import parameter_shapes
from numpy_layers import relu
from numpy_residual import batch_norm, conv_of, images, random_variables, squeeze_excitation
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.resnet import ResidualUnit, UnitSettings
from adaptive_nets.models.resnet_cifar import CifarUnit

pytestmark = pytest.mark.core


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params", "giga_macs"),
    [
        ("seresnet18", 11_779_624, None),
        ("seresnet34", 21_960_416, None),
        ("seresnet50", 28_088_024, None),
        ("legacy_seresnet18", 11_778_592, None),
        ("legacy_seresnet34", 21_958_868, None),
        ("legacy_seresnet50", 28_088_024, 3.860),
        ("se_resnet101", 49_326_872, 7.575),
        ("se_resnet152", 66_821_848, 11.289),
        ("seresnext50_32x4d", 27_559_896, 4.233),
        ("legacy_seresnext101_32x4d", 48_955_416, 7.975),
    ],
)
def test_published_sizes(name, params, giga_macs):
    assert an.count_params(name) == params
    if giga_macs:
        assert round(an.count_macs(name) / 1e9, 3) == giga_macs


@pytest.mark.slow
def test_senet154():
    assert an.count_params("senet154") == 115_088_984
    assert an.count_macs("legacy_senet154") == 20_688_363_520


def test_without_biases_of_the_gates():
    assert an.count_params("se_resnet50", se_bias=False) == 28_071_976


@pytest.mark.parametrize(
    ("reduction", "mega"), [(2, 45.7), (4, 35.7), (8, 30.7), (16, 28.1), (32, 26.9)]
)
def test_reduction_ratios_of_the_paper(reduction, mega):
    """The printed millions, which the weights alone miss by up to 0.12."""
    params = an.count_params("se_resnet50", reduction=reduction, se_bias=False)
    assert abs(params / 1e6 - mega) < 0.15


@pytest.mark.parametrize(
    ("depth", "bias", "no_bias"),
    [(20, 272_095, 271_738), (56, 860_137, 859_066), (110, 1_742_200, 1_740_058)],
)
def test_small_images(depth, bias, no_bias):
    name = f"se_resnet{depth}_cifar10"
    assert an.count_params(name) == bias
    assert an.count_params(name, se_bias=False) == no_bias


def test_published_names():
    """One unit of each form, called as in the published weights."""
    timm = parameter_shapes(an.create_model("seresnet18"), (32, 32, 3))
    assert timm["layer1_0/se/fc1/kernel"] == (64, 8)  # 64 / 16 rounded up to a multiple of 8
    assert {"conv1/kernel", "layer2_0/downsample_0/kernel", "fc/bias"} <= set(timm)
    legacy = parameter_shapes(an.create_model("senet154"), (32, 32, 3))
    assert legacy["layer0_conv3/kernel"] == (3, 3, 64, 128)
    assert legacy["layer2_0/downsample_0/kernel"] == (3, 3, 256, 512)
    assert legacy["layer1_0/downsample_0/kernel"] == (1, 1, 128, 256)
    assert legacy["layer1_0/conv1/kernel"] == (1, 1, 128, 128)
    assert legacy["layer1_0/conv2/kernel"] == (3, 3, 2, 256)
    assert legacy["layer4_2/se_module/fc2/bias"] == (2048,)
    assert legacy["last_linear/kernel"] == (2048, 1000)


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"reduction": 4}, 1),
        ({"reduction": 4, "inner_ratios": (2, 4), "groups": 2, "projection_kernel": 3}, 2),
    ],
)
def test_bottleneck_rescales_its_branch_before_the_sum(options, groups):
    unit, x = ResidualUnit(2, (2, 2), UnitSettings(**options)), images(2, 7, 6, 4)
    variables = random_variables(unit, x)
    inputs = np.asarray(x, np.float64)
    y = relu(batch_norm(conv_of(inputs, variables, "conv1"), variables, "bn1"))
    y = conv_of(y, variables, "conv2", stride=2, groups=groups)
    y = relu(batch_norm(y, variables, "bn2"))
    y = batch_norm(conv_of(y, variables, "conv3"), variables, "bn3")
    y = squeeze_excitation(y, variables["params"]["se"])
    skip = conv_of(inputs, variables, "downsample_0", stride=2)
    skip = batch_norm(skip, variables, "downsample_1")
    close(jax.jit(unit.apply)(variables, x), relu(y + skip), terms=500)


def test_basic_units():
    for unit in (
        CifarUnit(8, reduction=4, se_bias=False),
        ResidualUnit(8, settings=UnitSettings(bottleneck=False, reduction=4)),
        ResidualUnit(8, settings=UnitSettings(bottleneck=False, reduction=4, relu_before_se=True)),
    ):
        x = images(2, 5, 5, 8)
        variables = random_variables(unit, x)
        inputs = np.asarray(x, np.float64)
        y = relu(batch_norm(conv_of(inputs, variables, "conv1"), variables, "bn1"))
        y = batch_norm(conv_of(y, variables, "conv2"), variables, "bn2")
        if isinstance(unit, ResidualUnit) and unit.settings.relu_before_se:
            y = relu(y)
        y = squeeze_excitation(y, variables["params"]["se"])
        close(jax.jit(unit.apply)(variables, x), relu(y + inputs), terms=500)
