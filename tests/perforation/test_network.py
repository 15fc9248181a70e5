"""Perforated networks against dense ones whose maps are copied position by position, in NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perforated_networks import Plain, Residual, plain_oracle, residual_oracle
from tolerances import close

from adaptive_nets.models import create_model
from adaptive_nets.perforation import (
    conv_layers,
    layer_mask,
    make_plan,
    perforate,
    uniform_mask,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

SHAPE = (8, 8, 3)
NETWORKS = {
    "plain": (Plain(), plain_oracle, SHAPE),
    "residual": (Residual(), residual_oracle, (8, 8, 3)),
}
RATES = {
    "plain": [
        {"conv1": 0.5},
        {"conv1": 0.6, "conv2": 0.5, "conv3": 0.75, "conv4": 0.3},
        {"mixer": 0.5, "conv3": 0.5},
        {"conv1": 0.3, "mixer": 0.7, "conv4": 0.9},
    ],
    "residual": [
        {"stem": 0.5, "inner": 0.5, "outer": 0.5, "branch": 0.5, "last": 0.75},
        {"inner": 0.75, "branch": 0.9},
    ],
}
CASES = [(name, number) for name in NETWORKS for number in range(len(RATES[name]))]


@pytest.fixture(scope="module")
def prepared():
    """Network -> its variables, all of them random, and images."""
    result = {}
    for name, (model, _, shape) in NETWORKS.items():
        x = jax.random.normal(jax.random.key(1), (2, *shape))
        variables = jax.jit(model.init)(jax.random.key(0), x)
        rng = np.random.default_rng(5)

        # Biases and statistics that are neither 0 nor 1; variances stay positive.
        def draw(leaf, rng=rng):
            more = 0.3 * np.abs(rng.standard_normal(leaf.shape, np.float32))
            return leaf + more if leaf.ndim == 1 else leaf

        result[name] = jax.tree.map(draw, variables), x
    return result


def plan_of(name, variables, rates, kind="uniform"):
    model, _, shape = NETWORKS[name]
    return make_plan(jax.random.key(3), conv_layers(model, variables, shape), rates, kind)


@pytest.mark.parametrize(
    ("name", "number", "interpolation"),
    [(*case, "implicit") for case in CASES] + [("plain", 1, "explicit")],
)
def test_equals_dense_maps_copied(prepared, name, number, interpolation):
    model, oracle, shape = NETWORKS[name]
    variables, x = prepared[name]
    plan = plan_of(name, variables, RATES[name][number])
    perforated = perforate(model, variables, plan, image_shape=shape, interpolation=interpolation)
    actual = jax.jit(perforated.apply)(variables, x)
    close(actual, oracle(variables, x, plan.layers), terms=500)
    changed = np.abs(actual - model.apply(variables, x)).max()
    assert changed > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_in_training_equals_explicit_interpolation(prepared, name):
    model, _, _ = NETWORKS[name]
    variables, x = prepared[name]
    plan = plan_of(name, variables, RATES[name][-1 if name == "residual" else 1])
    keys = {"dropout": jax.random.key(7)}
    collections = [key for key in variables if key != "params"]

    def loss_of(params, interpolation):
        network = perforate(model, variables, plan, interpolation=interpolation)
        logits, changed = network.apply(
            {**variables, "params": params}, x, train=True, rngs=keys, mutable=collections
        )
        return jnp.sum(jnp.sin(logits)), (logits, changed)

    gradient = jax.jit(jax.grad(loss_of, has_aux=True), static_argnums=1)
    implicit, (logits, changed) = gradient(variables["params"], "implicit")
    explicit, (expected, expected_changed) = gradient(variables["params"], "explicit")
    close(logits, expected, terms=500)
    assert set(changed) == set(expected_changed)
    jax.tree.map(lambda a, b: close(a, b, terms=500), dict(changed), dict(expected_changed))
    assert jax.tree.structure(implicit) == jax.tree.structure(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(implicit):
        other = explicit
        for part in path:
            other = other[part.key]
        assert np.any(other), path
        close(leaf, other, terms=2000, gradient=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_keeping_everything_changes_no_bit(prepared, name):
    model, _, shape = NETWORKS[name]
    variables, x = prepared[name]
    rates = {layer.name: 0.0 for layer in conv_layers(model, variables, shape)}
    network = perforate(model, variables, plan_of(name, variables, rates, "grid"))
    actual = jax.jit(network.apply)(variables, x)
    np.testing.assert_array_equal(actual, jax.jit(model.apply)(variables, x))


def test_layers_before_a_perforated_one_change_no_bit(prepared):
    model, _, _ = NETWORKS["plain"]
    variables, x = prepared["plain"]
    plan = plan_of("plain", variables, {"conv1": 0.0, "conv4": 0.5})
    seen = {}

    def tap(name, output):
        seen[name] = output
        return output

    def outputs(rates):
        network = perforate(model, variables, plan_of("plain", variables, rates))
        network.apply_tapped(variables, x, tap, train=False)
        return dict(seen)

    assert plan.layers["conv1"].keep == 1.0
    perforated, whole = outputs({"conv1": 0.0, "conv4": 0.5}), outputs({})
    for name in ("conv1", "mixer", "conv2", "conv3"):
        np.testing.assert_array_equal(perforated[name], whole[name])
    assert perforated["conv4"].values.shape[1] < 16


def test_what_stays_compact(prepared):
    """Everything up to the next spatial layer, and no map is ever written out."""
    model, _, shape = NETWORKS["plain"]
    variables, x = prepared["plain"]
    plan = plan_of("plain", variables, RATES["plain"][1])
    network = perforate(model, variables, plan, image_shape=shape, implementation="xla")
    program = str(jax.make_jaxpr(network.apply)(variables, x))
    kept = plan.layers["conv1"].kept
    assert f"f32[2,1,{kept},6]" in program  # the 1x1 convolution
    assert "f32[2,8,8,4]" not in program
    assert "f32[2,8,8,6]" not in program
    assert "f32[2,4,4,6]" in program  # max pooling's output is the first whole map
    explicit = perforate(model, variables, plan, interpolation="explicit", implementation="xla")
    assert "f32[2,8,8,4]" in str(jax.make_jaxpr(explicit.apply)(variables, x))


def test_network_of_checkpointed_layers_and_shared_weights():
    import flax.linen as nn

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            layer = nn.Conv(3, (3, 3), name="shared")
            block = nn.checkpoint(nn.Conv)(3, (3, 3), name="saved")
            return block(nn.relu(layer(nn.relu(layer(x))))).mean(axis=(1, 2))

    model, x = Twice(), jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    layers = conv_layers(model, variables, (6, 6, 3))
    assert [layer.name for layer in layers] == ["shared", "shared#2", "saved"]
    plan = make_plan(jax.random.key(2), layers, {"shared#2": 0.5, "saved": 0.75})

    def loss_of(variables, interpolation):
        network = perforate(model, variables, plan, interpolation=interpolation)
        return jnp.sum(jnp.sin(network.apply(variables, x)))

    gradient = jax.jit(jax.value_and_grad(loss_of), static_argnums=1)
    (a, da), (b, db) = gradient(variables, "implicit"), gradient(variables, "explicit")
    close(a, b, terms=100)
    jax.tree.map(lambda a, b: close(a, b, terms=500, gradient=True), da, db)


def test_mistakes_take_one_line(prepared, tmp_path):
    model, _, shape = NETWORKS["plain"]
    variables, x = prepared["plain"]
    layers = conv_layers(model, variables, shape)
    good = make_plan(jax.random.key(0), layers, {"conv1": 0.5})
    other = dataclasses.replace(good, fingerprint="0" * 16, model="nin")
    small = layer_mask(jax.random.key(0), uniform_mask(jax.random.key(0), (4, 4), 0.5))
    for plan, expected in [
        (other, "another network, nin"),
        (good.replace(conv1=small), "mask of conv1 has size 4x4; expected 8x8"),
        (good.replace(conv9=small), "no convolution 'conv9'; did you mean 'conv"),
    ]:
        with pytest.raises(UserError, match=expected):
            perforate(model, variables, plan, image_shape=shape)
        with pytest.raises(UserError, match=expected):
            perforate(model, variables, plan).apply(variables, x)
    with pytest.raises(UserError, match="mask of conv1 has size 8x8; expected 9x9"):
        perforate(model, variables, good, image_shape=(9, 9, 3))
    with pytest.raises(UserError, match="interpolation is 'zeros'; expected implicit or explicit"):
        perforate(model, variables, good, interpolation="zeros")  # pyright: ignore
    residual, variables = NETWORKS["residual"][0], prepared["residual"][0]
    with pytest.raises(UserError, match="the network has no convolution 'conv1'"):
        perforate(residual, variables, good, image_shape=(9, 9, 3))


def test_any_implementation_that_runs_here(prepared):
    model, oracle, _ = NETWORKS["plain"]
    variables, x = prepared["plain"]
    plan = plan_of("plain", variables, RATES["plain"][1])
    for implementation in (("mosaic_tpu", "xla"),):
        network = perforate(model, variables, plan, implementation=implementation)
        close(jax.jit(network.apply)(variables, x), oracle(variables, x, plan.layers), terms=500)
    with pytest.raises(NotImplementedError):
        perforate(model, variables, plan, implementation="mosaic_tpu").apply(variables, x)


def test_zoo_network_in_half_precision():
    model = create_model("lenet5_caffe", dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    layers = conv_layers(model, variables, (28, 28, 1))
    plan = make_plan(jax.random.key(2), layers, {"conv1": 0.5, "conv2": 0.5})
    logits = [
        jax.jit(perforate(model, variables, plan, interpolation=how).apply)(variables, x)
        for how in ("implicit", "explicit")
    ]
    close(logits[0], logits[1], terms=30, dtype=jnp.bfloat16)
