"""Perforation in one call of networks that are not of the zoo."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from perforated_networks import Plain, plain_oracle

from adaptive_nets.perforation import (
    average_impact,
    conv_layers,
    impact_mask,
    load_plan,
    make_plan,
    perforate,
    plan_macs,
    save_plan,
)

pytestmark = pytest.mark.core
SHAPE = (9, 9, 3)
IMAGES = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
MASK = np.random.default_rng(1).random((9, 9)) < 0.4


@pytest.fixture(scope="module")
def variables():
    return jax.jit(Plain().init)(jax.random.key(0), IMAGES)


def test_fractions_and_masks_of_layers(variables):
    fractions = {"conv1": MASK, "conv2": 0.5, "conv4": 1.0}
    network = perforate(Plain(), variables, IMAGES, fractions, kind="uniform")
    layers = network.plan.layers
    assert np.array_equal(layers["conv1"].mask, MASK)
    assert layers["conv2"].kept == layers["conv2"].mask.size // 2
    assert layers["conv4"].mask.all()
    expected = plain_oracle(variables, IMAGES, layers)
    np.testing.assert_allclose(jax.jit(network)(IMAGES), expected, rtol=1e-4, atol=1e-5)
    compiled = jax.jit(network.apply)
    np.testing.assert_allclose(compiled(variables, IMAGES), expected, rtol=1e-4, atol=1e-5)
    # Fine-tuning: gradients of the perforated network, by finite differences of the oracle.
    loss = lambda v: jnp.sum(network.apply(v, IMAGES) ** 2)  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(variables)["params"]["conv2"]["bias"]
    numbers = []
    for step in (1e-4, -1e-4):
        moved = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        moved["params"]["conv2"]["bias"][1] += step
        numbers.append(np.sum(plain_oracle(moved, IMAGES, layers) ** 2))
    assert float(gradient[1]) == pytest.approx((numbers[0] - numbers[1]) / 2e-4, rel=1e-3)


def test_a_number_perforates_every_candidate_and_costs_less(variables, tmp_path):
    network = perforate(Plain(), variables, IMAGES, 0.4, kind="uniform")
    layers = conv_layers(Plain(), variables, SHAPE)
    assert network.layers == layers
    assert set(network.plan.layers) == {layer.name for layer in layers if layer.by_default}
    assert network.unperforated_macs == plan_macs(layers) > network.macs
    assert network.macs == plan_macs(layers, network.plan)
    again = perforate(Plain(), variables, IMAGES, 0.4, kind="uniform")
    other = perforate(Plain(), variables, IMAGES, 0.4, kind="uniform", key=jax.random.key(1))
    assert again.plan == network.plan != other.plan
    # A plan of its file, with images or in their place.
    save_plan(tmp_path / "plan.safetensors", network.plan)
    loaded = load_plan(tmp_path / "plan.safetensors")
    assert perforate(Plain(), variables, IMAGES, loaded).macs == network.macs
    for old in (
        perforate(Plain(), variables, loaded, image_shape=SHAPE),
        perforate(Plain(), variables, plan=loaded),
    ):
        assert old.plan == network.plan
    shaped = perforate(Plain(), variables, plan=0.4, kind="uniform", image_shape=SHAPE)
    assert shaped.plan == network.plan


def test_impact_masks_of_own_predictions(variables):
    network = perforate(Plain(), variables, IMAGES, {"conv1": 0.3}, kind="impact")
    labels = np.argmax(jax.jit(Plain().apply)(variables, IMAGES), axis=-1)
    impact = average_impact(Plain(), variables, IMAGES, labels)
    assert np.array_equal(network.plan.layers["conv1"].mask, impact_mask(impact["conv1"], 0.3))
    others = perforate(
        Plain(), variables, IMAGES, {"conv1": 0.3}, kind="impact", labels=(labels + 1) % 3
    )
    assert others.plan != network.plan


class Small(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).mean((1, 2)))


def test_nnx_modules():
    model = Small(nnx.Rngs(0))
    with jax.numpy_rank_promotion("allow"):
        network = perforate(model, None, IMAGES, {"conv": MASK})
        nearest = network.plan.layers["conv"].nearest.ravel()
        y = np.asarray(model.conv(IMAGES)).reshape(4, -1, 4)[:, nearest]
        expected = model.out(np.maximum(y, 0).mean(1))
        np.testing.assert_allclose(network(IMAGES), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            network.apply(nnx.state(model), IMAGES), expected, rtol=1e-4, atol=1e-5
        )


class Loop(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.mean((1, 2)))


class Dense(nn.Module):
    """A network of maps, not of classes."""

    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (3, 3))(x)


def test_mistakes(complains, variables):
    def call(plan, images=IMAGES, **options):
        return lambda: perforate(Plain(), variables, images, plan, **options)

    complains(call({"convv1": 0.5}), "no convolution 'convv1'", "conv1")
    for value in (0.0, 1.5, -0.1, float("nan"), "half", None, True):
        complains(call({"conv1": value}), "plan of conv1", repr(value), "(0, 1]", "bool[9, 9]")
    complains(call({"conv1": 0.001}), "plan of conv1 is 0.001", "keeps none of 9x9")
    complains(call({"conv1": MASK[:5]}), "mask of conv1 is bool[5, 9]", "bool[9, 9]")
    complains(call({"conv1": MASK.astype(int)}), "mask of conv1 is int64")
    complains(call({"conv1": np.zeros((9, 9), bool)}), "mask of conv1", "keeps nothing")
    complains(call({"conv1": 0.5}, kind="hexagonal"), "kind of conv1 is 'hexagonal'")
    complains(call({"conv1": 0.5}, interpolation="none"), "interpolation is 'none'")
    complains(call(None), "plan is None")
    complains(call(0.5, images=None), "images is None", "image_shape")
    complains(call(0.5, images=IMAGES[0]), "images have shape (9, 9, 3)")
    complains(call(0.5, images=IMAGES[:0], kind="impact"), "kind is 'impact'")
    complains(call(0.5, images=None, image_shape=SHAPE, kind="impact"), "kind is 'impact'")
    complains(lambda: perforate(Plain(), None, IMAGES, 0.5), "variables is None")
    complains(lambda: perforate(len, variables, IMAGES, 0.5), "flax.linen")
    empty = jax.eval_shape(Loop().init, jax.random.key(0), IMAGES)
    complains(lambda: perforate(Loop(), empty, IMAGES, 0.5), "no convolution", "perforated")
    values = Dense().init(jax.random.key(0), IMAGES)
    complains(lambda: perforate(Dense(), values, IMAGES, 0.5, kind="impact"), "logits [M, K]")
    plan = make_plan(jax.random.key(0), conv_layers(Plain(), variables, SHAPE), {"conv1": 0.5})
    complains(lambda: perforate(Dense(), values, IMAGES, plan), "no convolution 'conv1'")
