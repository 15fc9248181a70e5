"""Adaptive depth over the networks of he2015: the plain network's weights, outputs and cost."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import (
    IMAGES,
    SIZES,
    WIDTHS,
    initial,
    post_activation,
    post_activation_bottleneck,
    variables,
)
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.adaptive.weights import init_from_plain
from adaptive_nets.models.resnet import ResNet, UnitSettings
from adaptive_nets.models.resnet_cifar import CifarResNet

pytestmark = pytest.mark.core
LARGE = jnp.asarray(np.random.default_rng(4).standard_normal((2, 32, 32, 3)), jnp.float32)


def plain_cifar(shortcut):
    return CifarResNet(SIZES, widths=WIDTHS, num_classes=5, shortcut=shortcut)


def plain_large(**settings):
    return ResNet((3, 2), widths=(2, 3), num_classes=5, unit=UnitSettings(**settings))


CASES = {
    "option A": (post_activation, plain_cifar, {"shortcut": "A"}, IMAGES),
    "option B": (post_activation, plain_cifar, {"shortcut": "B"}, IMAGES),
    "bottleneck": (post_activation_bottleneck, plain_large, {}, LARGE),
    "basic": (post_activation_bottleneck, plain_large, {"bottleneck": False}, LARGE),
}


# Each compiles two networks; the quick ones are of one rule, and dense: skipping equals that below.
@pytest.mark.parametrize("execution", ["dense", pytest.param("skipping", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("act", marks=pytest.mark.slow),
        "sact",
        pytest.param("pact", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c == "option A" else pytest.mark.slow) for c in CASES],
)
def test_without_halting_it_is_the_plain_network_with_its_weights(case, rule, execution):
    adaptive, plain, options, images = CASES[case]
    model, below = adaptive(rule, **options), plain(**options)
    trained = variables(below, bias=0.0)
    values = init_from_plain(initial(model), trained)
    for name, head in values["params"].items():
        if name.endswith("_head"):
            place = head if "bias" in head else head["dense_global"]
            place["bias"] = jnp.full_like(place["bias"], -60.0)
    output = jax.jit(functools.partial(an.full_output, model, execution=execution))(values, images)
    close(output.logits, jax.jit(below.apply)(trained, images), terms=200)
    for block, size in zip(output.blocks, model.stage_sizes, strict=True):
        assert np.all(np.asarray(block.num_units) == size)


@pytest.mark.parametrize("rule", ["sact", pytest.param("pact", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["option A", pytest.param("bottleneck", marks=pytest.mark.slow)])
def test_skipping_equals_masking(case, rule):
    adaptive, _, options, images = CASES[case]
    model = adaptive(rule, **options)
    dense = jax.jit(functools.partial(an.full_output, model, execution="dense"))
    skipping = jax.jit(functools.partial(an.full_output, model, execution="skipping"))
    seen = set()
    for bias in (40.0, -0.6, -1.5):
        values = variables(model, bias=bias)
        expected, found = dense(values, images), skipping(values, images)
        close(found.logits, expected.logits, terms=1000)
        for ours, theirs in zip(found.blocks, expected.blocks, strict=True):
            assert np.array_equal(ours.num_units, theirs.num_units)
            seen |= set(np.unique(ours.num_units))
        assert np.array_equal(flops_per_image(model, found), flops_per_image(model, expected))
    assert len(seen) > 1


def test_positions_that_halted_copy_the_state():
    model = post_activation("pact")
    values = variables(model, bias=40.0)
    states = []

    def record(units, x, train):
        states.append(units[0](x, train))
        for unit in units[1:]:
            states.append(unit(x := states[-1], train, mask=jnp.zeros(x.shape[:3])))
        return states[-1]

    model.apply(values, IMAGES, False, record, method="logits")
    assert float(jnp.max(states[0])) > 0
    np.testing.assert_array_equal(states[0], states[2])


@pytest.mark.parametrize(
    ("name", "plain"),
    [("resnetv1_32_sact_cifar10", "resnet32_cifar10"), ("resnetv1_50_act", "resnet50")],
)
def test_all_units_and_no_heads_cost_the_plain_network(name, plain):
    model = an.create_model(name)
    below = an.create_model(plain)
    shape = (32, 32) if "cifar" in name else (224, 224)
    maps = (
        [(32, 32), (16, 16), (8, 8)] if "cifar" in name else [(56, 56), (28, 28), (14, 14), (7, 7)]
    )
    costs = model.block_costs(maps, shape)
    total = model.fixed_flops(maps, shape)
    for cost, size, (height, width) in zip(costs, model.stage_sizes, maps, strict=True):
        unit = sum(2 * height * width * int(np.prod(kernel)) for kernel in cost.kernels)
        total += cost.first_unit + (size - 1) * unit
    assert total == 2 * an.count_macs(plain)
    assert model.num_classes == below.num_classes


def test_names_and_options():
    assert an.create_model("resnet20_cifar10_pact") == an.create_model("resnetv1_20_pact_cifar10")
    assert an.create_model("resnetv1_20_sact_cifar10", shortcut="B").shortcut == "B"
    with pytest.raises(Exception, match="shortcuts"):
        an.create_model("resnetv1_20_sact_cifar10", shortcuts="B")
    assert {f"resnetv1_{d}_sact_cifar10" for d in (20, 32, 44, 56, 110)} <= set(
        an.list_models("resnetv1_*")
    )
