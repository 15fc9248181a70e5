"""Layers, costs and memory of networks, counted by hand; impacts by differences."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from perforated_networks import Plain, Residual, plain_oracle
from tolerances import close

from adaptive_nets.analysis import count_macs
from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.layers import max_pool
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.perforation import (
    Pooling,
    activation_bytes,
    average_impact,
    conv_layers,
    load_plan,
    load_plan_variables,
    make_plan,
    plan_macs,
    save_plan,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

SHAPE = (8, 8, 3)


def layers_of(model, shape=SHAPE):
    variables = abstract_variables(model, shape)
    return variables, {layer.name: layer for layer in conv_layers(model, variables, shape)}


def test_layers_are_described():
    _, layers = layers_of(Plain())
    assert list(layers) == ["conv1", "mixer", "conv2", "conv3", "conv4"]
    first = layers["conv1"]
    pooling = Pooling((3, 3), (2, 2), ((0, 1), (0, 1)))
    assert (first.input_size, first.output_size, first.kernel_size) == ((8, 8), (8, 8), (5, 5))
    assert (first.channels, first.outputs, first.macs) == (3, 4, 8 * 8 * 25 * 3 * 4)
    assert first.pooling == layers["mixer"].pooling == pooling
    assert layers["conv2"].groups == 2
    assert layers["conv2"].macs == 4 * 4 * 9 * 3 * 4
    assert layers["conv2"].pooling is None
    assert layers["conv3"].pooling == Pooling((3, 3), (1, 1), ((1, 1), (1, 1)))
    assert layers["conv4"].pooling == Pooling((4, 4), (1, 1), ((0, 0), (0, 0)))
    assert [name for name, layer in layers.items() if layer.by_default] == [
        "conv1",
        "conv2",
        "conv3",
        "conv4",
    ]
    assert layers["mixer"].perforable
    assert layers["mixer"].follows == "conv1"


@pytest.mark.parametrize(
    ("name", "convolutions", "by_default"),
    [
        ("nin_cifar10", 9, 3),
        ("alexnet_2012", 5, 5),
        ("vgg11", 8, 8),
        ("resnet18", 20, 17),
        ("densenet_bc40_k12_cifar10", 39, 19),
        ("googlenet", 57, 20),
    ],
)
def test_every_family_is_traced(name, convolutions, by_default):
    model, shape = create_model(name), model_entry(name).input_shape
    variables = abstract_variables(model, shape)
    layers = conv_layers(model, variables, shape)
    assert len(layers) == convolutions
    assert sum(layer.by_default for layer in layers) == by_default
    dense = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        # Auxiliary classifiers do not run at test.
        if path[-1].key == "kernel" and leaf.ndim == 2 and "aux" not in path[0].key
    )
    assert plan_macs(layers) + dense == count_macs(model, input_shape=shape)


def test_what_cannot_be_perforated():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Conv(3, (3, 3), kernel_dilation=2, name="dilated")(x)
            x = nn.ConvTranspose(3, (3, 3), strides=(2, 2), name="transposed")(x)
            body = nn.scan(
                lambda layer, x, _: (layer(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            x, _ = body(nn.Conv(3, (3, 3), name="looped"), x, None)
            return nn.Conv(4, (16, 16), padding="VALID", name="last")(x).mean(axis=(1, 2))

    _, layers = layers_of(Odd())
    assert not any(layer.perforable for layer in layers.values())
    reasons = {name.rpartition("/")[2]: layer.reason for name, layer in layers.items()}
    assert "dilated" in reasons["dilated"]
    assert "transposed" in reasons["transposed"]
    assert "one position" in reasons["last"]
    assert any("loop" in reason for reason in reasons.values())
    with pytest.raises(UserError, match="layer dilated cannot be perforated: it is dilated"):
        make_plan(jax.random.key(0), list(layers.values()), {"dilated": 0.5})


@pytest.mark.parametrize("model", [Plain(), Residual()])
def test_macs_are_those_carried_out(model):
    variables, layers = layers_of(model)
    names = list(layers)
    executed = ExecutedMacs(model, variables, SHAPE)
    dense = executed.whole - plan_macs(list(layers.values()))
    for rates in ({names[0]: 0.5}, dict.fromkeys(names, 0.6), {names[1]: 0.5, names[2]: 0.0}):
        plan = make_plan(jax.random.key(0), list(layers.values()), rates)
        assert plan_macs(list(layers.values()), plan) + dense == executed(plan)


def test_bytes_by_hand():
    class Small(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
            x = nn.relu(nn.Conv(8, (3, 3), name="conv2")(x))
            x = max_pool(x, (2, 2))
            return nn.Dense(5, name="fc")(x.reshape(x.shape[0], -1))

    model = Small()
    variables, layers = layers_of(model)
    # Input, convolution and ReLU twice, pooling, dense layer.
    whole = [8 * 8 * 3, *[8 * 8 * 4] * 2, *[8 * 8 * 8] * 2, 4 * 4 * 8, 5]
    measured = activation_bytes(model, variables, SHAPE)
    assert measured.stored == 4 * sum(whole)
    assert measured.peak == 4 * (512 + 512)
    plan = make_plan(jax.random.key(0), list(layers.values()), {"conv1": 0.5, "conv2": 0.75})
    one, two = plan.layers["conv1"].kept, plan.layers["conv2"].kept
    compact = [192, *[4 * one] * 2, *[8 * two] * 2, 128, 5]
    measured = activation_bytes(model, variables, SHAPE, plan)
    assert measured.stored == 4 * sum(compact)
    assert measured.peak == 4 * max(192 + 4 * one, 8 * one, 4 * one + 8 * two, 16 * two)
    # A whole convolution behind a perforated one needs every position.
    plan = make_plan(jax.random.key(0), list(layers.values()), {"conv1": 0.5})
    measured = activation_bytes(model, variables, SHAPE, plan)
    assert measured.stored == 4 * (sum(whole) - 512 + 8 * one + 256)


def test_bytes_of_caffenet_by_hand():
    model, shape = create_model("caffenet"), (227, 227, 3)
    convolutions = [55**2 * 96, 27**2 * 256, 13**2 * 384, 13**2 * 384, 13**2 * 256]
    poolings = [27**2 * 96, 13**2 * 256, 6**2 * 256]
    # Each convolution and hidden dense layer has a ReLU, the first two poolings a normalisation.
    values = [227**2 * 3, *convolutions * 2, *poolings, *poolings[:2], *[4096] * 4, 1000]
    stored = activation_bytes(model, abstract_variables(model, shape), shape).stored
    assert stored == 4 * sum(values)


@pytest.fixture(scope="module")
def plain():
    model, x = Plain(), jax.random.normal(jax.random.key(1), (3, *SHAPE))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    return model, variables, x, jnp.array([0, 2, 1])


def impact_by_differences(variables, x, labels, name, masks):
    """Σ_t |∂L/∂V · V| of one layer, from central differences of the NumPy network."""
    import perforated_networks as networks

    outputs = {}

    def loss(change):
        def convolve(x, kernel, bias, **options):
            y = plain_conv(x, kernel, bias, **options)
            if kernel.shape == shape:
                # What is changed at a kept position is changed wherever it is copied.
                y = y + change
                outputs["V"] = y
            return y

        networks.conv = convolve
        try:
            logits = plain_oracle(variables, x, masks)
        finally:
            networks.conv = plain_conv
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1))
        return log_sums - shifted[np.arange(len(labels)), labels]

    plain_conv, shape = networks.conv, variables["params"][name]["kernel"].shape
    loss(0.0)
    values, step = outputs["V"], 1e-5
    total = np.zeros(values.shape[1:3])
    for i, j, t in np.ndindex(*values.shape[1:]):
        change = np.zeros(values.shape[1:])
        change[i, j, t] = step
        slope = (loss(change) - loss(-change)) / (2 * step)
        total[i, j] += np.abs(slope * values[:, i, j, t]).sum()
    return total / len(x)


@pytest.mark.parametrize("rates", [{}, {"conv2": 0.5, "conv3": 0.6}])
def test_impact_by_differences(plain, rates):
    model, variables, x, labels = plain
    plan = make_plan(jax.random.key(5), conv_layers(model, variables, SHAPE), rates, "uniform")
    calls = []
    impacts = average_impact(
        model,
        variables,
        x,
        labels,
        plan=plan,
        batch_size=2,
        progress=lambda *counts: calls.append(counts),
    )
    assert calls == [(2, 3), (3, 3)]
    assert set(impacts) == {"conv1", "mixer", "conv2", "conv3", "conv4"}
    for name in ("conv2", "conv3"):
        expected = impact_by_differences(variables, x, np.asarray(labels), name, plan.layers)
        close(impacts[name], expected, terms=2000, gradient=True)
        if rates:
            mask = plan.layers[name].mask
            assert not impacts[name][~mask].any()
            assert impacts[name][mask].all()


def test_impact_of_batches_and_mistakes(plain):
    model, variables, x, labels = plain
    whole = average_impact(model, variables, x[:2], labels[:2], batch_size=2)
    parts = average_impact(model, variables, [(x[:1], labels[:1]), (x[1:2], labels[1:2])])
    for name, impact in whole.items():
        close(parts[name], impact, terms=100, gradient=True)
    with pytest.raises(UserError, match="images is empty"):
        average_impact(model, variables, [])
    with pytest.raises(UserError, match="labels has 2 entries; expected 3"):
        average_impact(model, variables, x, labels[:2])


def test_plans_are_drawn_and_kept(plain, tmp_path):
    model, variables, _, _ = plain
    layers = conv_layers(model, variables, SHAPE)
    impacts = {"conv3": np.arange(16.0).reshape(4, 4)}
    kinds = {"conv1": "pooling", "mixer": "grid", "conv3": "impact", "conv4": "uniform"}
    rates = dict.fromkeys(kinds, 0.5)
    plan = make_plan(jax.random.key(0), layers, rates, kinds, impacts, model="plain")
    assert plan == make_plan(jax.random.key(0), layers, rates, kinds, impacts)
    assert plan != make_plan(jax.random.key(1), layers, rates, kinds, impacts)
    assert plan.layers["conv3"].mask.tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    assert {name: mask.kept for name, mask in plan.layers.items()} == {
        "conv1": 32,
        "mixer": 25,
        "conv3": 8,
        "conv4": 8,
    }
    alone = make_plan(jax.random.key(0), layers, {"conv4": 0.5}, "uniform")
    np.testing.assert_array_equal(alone.layers["conv4"].mask, plan.layers["conv4"].mask)
    path = tmp_path / "plan.safetensors"
    save_plan(path, plan, variables=variables)
    assert load_plan(path) == plan
    assert load_plan(path).model == "plain"
    jax.tree.map(np.testing.assert_array_equal, load_plan_variables(path), dict(variables))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        load_plan(path)
    with pytest.raises(UserError, match="does not exist"):
        load_plan(tmp_path / "none")


@pytest.mark.parametrize(
    ("rates", "kind", "message"),
    [
        ({"conv1": 1.0}, "grid", "rate of conv1 is 1.0; expected a perforation rate in"),
        ({"conv1": -0.1}, "grid", "rate of conv1 is -0.1; expected"),
        ({"conv1": float("nan")}, "grid", "rate of conv1 is nan; expected"),
        ({"conv1": "half"}, "grid", "rate of conv1 is 'half'; expected"),
        ({"conv3": 0.99}, "grid", "keeps none of 4x4 positions; expected at most 0.9375"),
        ({"conv12": 0.5}, "grid", "no convolution 'conv12'; did you mean 'conv"),
        ({"conv1": 0.5}, "stripes", "kind of conv1 is 'stripes'; expected one of uniform, grid"),
        ({"conv2": 0.5}, "pooling", "kind of conv2 is 'pooling', but its next spatial layer"),
        ({"conv2": 0.5}, "impact", "impacts has no entry for conv2"),
    ],
)
def test_mistakes_take_one_line(plain, rates, kind, message):
    model, variables, _, _ = plain
    layers = conv_layers(model, variables, SHAPE)
    with pytest.raises(UserError, match=message) as error:
        make_plan(jax.random.key(0), layers, rates, kind)
    assert "\n" not in str(error.value)


def test_tenth_of_the_positions_is_kept_of_nine_tenths_perforated(plain):
    class One(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Conv(2, (3, 3), name="conv")(x).mean(axis=(1, 2))

    variables, layers = layers_of(One(), (10, 10, 1))
    del variables
    plan = make_plan(jax.random.key(0), list(layers.values()), {"conv": 0.9}, "uniform")
    assert plan.layers["conv"].kept == 10
