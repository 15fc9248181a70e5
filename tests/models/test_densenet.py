"""Densely connected networks: published sizes, layers and connections against NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from layer_trace import dropout_rates, parameter_shapes, trace
from numpy_layers import relu
from numpy_residual import batch_norm, conv_of, images, random_variables
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.densenet import DenseNet, Transition
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "params", "giga_macs"),
    [
        (121, 7_978_856, 2.834),
        (161, 28_681_000, 7.728),
        (169, 14_149_480, 3.360),
        (201, 20_013_928, 4.291),
    ],
)
def test_imagenet_sizes(depth, params, giga_macs):
    assert an.count_params(f"densenet{depth}") == params
    assert round(an.count_macs(f"densenet{depth}") / 1e9, 3) == giga_macs


def test_parameters_of_densenet121_by_part():
    parts: dict[str, int] = {}
    for name, shape in parameter_shapes(an.create_model("densenet121"), (64, 64, 3)).items():
        part = name.split("/")[0].removeprefix("features_").split("_")[0]
        parts[part] = parts.get(part, 0) + int(np.prod(shape))
    assert parts == {
        "conv0": 9_408, "norm0": 128,
        "denseblock1": 335_040, "denseblock2": 919_680,
        "denseblock3": 2_837_760, "denseblock4": 2_158_080,
        "transition1": 33_280, "transition2": 132_096, "transition3": 526_336,
        "norm5": 2_048, "classifier": 1_025_000,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ten", "hundred", "macs"),
    [
        ("densenet40_k12", 1_019_722, 1_060_132, 264_812_928),
        ("densenet100_k12", 6_979_642, 7_084_852, 1_769_516_448),
        ("densenet_bc40_k12", 176_122, 188_092, 72_365_352),
        ("densenet_bc100_k12", 769_162, 800_032, 287_929_692),
    ],
)
def test_small_sizes(name, ten, hundred, macs):
    assert an.count_params(f"{name}_cifar10") == ten
    assert an.count_params(f"{name}_cifar100") == hundred
    assert an.count_macs(f"{name}_cifar10") == macs


# Tracing these takes seconds each.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ten", "hundred", "macs"),
    [
        ("densenet100_k24", 27_249_082, 27_457_972, 6_889_347_744),
        ("densenet_bc250_k24", 15_324_406, 15_480_556, 5_418_785_724),
        ("densenet_bc190_k40", 25_624_430, 25_821_620, 9_301_945_740),
    ],
)
def test_large_sizes(name, ten, hundred, macs):
    test_small_sizes(name, ten, hundred, macs)


@pytest.mark.parametrize(("name", "params"), [("40_k12", 1_059_298), ("100_k12", 7_083_538)])
def test_plain_networks_with_the_wider_first_convolution(name, params):
    assert an.count_params(f"densenet{name}_cifar10", stem_features=None) == params


@pytest.mark.parametrize("bottleneck", [False, True])
def test_every_layer_sees_all_before_it(bottleneck):
    model = DenseNet(
        (3, 2), 3, 4, stem_features=5, bottleneck=bottleneck, compression=0.6, small_images=True
    )
    x = images(2, 7, 6, 3)
    variables = random_variables(model, x)

    def part(name):
        return {kind: tree[name] for kind, tree in variables.items() if name in tree}

    maps = [conv_of(x, variables, "features_conv0")]
    for block, layers in ((1, 3), (2, 2)):
        for i in range(1, layers + 1):
            layer = part(f"features_denseblock{block}_denselayer{i}")
            y = np.concatenate(maps, axis=-1)
            for stage in (1, 2) if bottleneck else (1,):
                y = conv_of(relu(batch_norm(y, layer, f"norm{stage}")), layer, f"conv{stage}")
            assert y.shape[-1] == 3
            maps.append(y)
        if block == 1:
            layer = part("features_transition1")
            y = relu(batch_norm(np.concatenate(maps, axis=-1), layer, "norm"))
            y = conv_of(y, layer, "conv")
            assert y.shape[-1] == 8  # 0.6 of 14, rounded down
            maps = [y[:, :6].reshape(2, 3, 2, 3, 2, 8).mean((2, 4))]
    y = relu(batch_norm(np.concatenate(maps, axis=-1), variables, "features_norm3"))
    head = variables["params"]["classifier"]
    logits = y.mean((1, 2)) @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"])
    close(jax.jit(model.apply)(variables, x), logits, terms=2000)


def test_dropout_follows_every_convolution_but_the_first():
    model = an.create_model("densenet_bc40_k12_cifar10", dropout_rate=0.2)
    calls, _ = trace(model, (32, 32, 3), train=True)
    assert dropout_rates(calls) == [0.2] * (36 + 2)
    calls, _ = trace(an.create_model("densenet_bc40_k12_cifar10"), (32, 32, 3), train=True)
    assert dropout_rates(calls) == []


def test_transition_in_training_uses_the_batch():
    layer, x = Transition(3), images(3, 4, 4, 5)
    variables = random_variables(layer, x)
    y = relu(batch_norm(np.asarray(x, np.float64), variables, "norm", train=True))
    y = conv_of(y, variables, "conv").reshape(3, 2, 2, 2, 2, 3).mean((2, 4))
    apply = jax.jit(lambda v, x: layer.apply(v, x, True, mutable=["batch_stats"])[0])
    close(apply(variables, x), y, terms=100)


@pytest.mark.parametrize(
    ("name", "depth", "expected"),
    [("densenet40_k12_cifar10", 41, "3 n"), ("densenet_bc100_k12_cifar10", 43, "6 n")],
)
def test_depths_that_do_not_exist(name, depth, expected):
    with pytest.raises(UserError, match=f"depth is {depth}; expected {expected}"):
        an.create_model(name, depth=depth)
