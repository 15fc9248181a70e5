"""Programs exported for any batch size (`jax.export`) give the values of a known one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import bottleneck, variables
from jax import export
from perforated_networks import Plain

from adaptive_nets.perforation import conv_layers, make_plan, perforate
from kernels import masked_conv, masked_unit, perforated_conv

KEPT = np.random.default_rng(0).random((5, 4)) < 0.5
KEPT[0, 0] = True
W = jnp.asarray(0.3 * np.random.default_rng(1).standard_normal((3, 3, 6, 6)), jnp.float32)

OPERATIONS = {
    "masked": lambda x, mask: masked_conv(x, W, mask),
    "masked, named": lambda x, mask: masked_conv(x, W, mask, implementation="xla"),
    "masked, capacity": lambda x, mask: masked_conv(x, W, mask, capacity=3, implementation="xla"),
    "perforated": lambda x, mask: perforated_conv(x, W, KEPT),
    "perforated, named": lambda x, mask: perforated_conv(x, W, KEPT, implementation="xla"),
    "unit": lambda x, mask: masked_unit(x, mask, (W, W)),
}


def exported(function, shape, *more):
    """The program for a symbolic batch; through its serialised form where that is possible."""
    size = export.symbolic_shape(", ".join(["b", *map(str, shape)]))
    arguments = [jax.ShapeDtypeStruct(size, jnp.float32)]
    arguments += [jax.ShapeDtypeStruct(size[: len(m) + 1], jnp.bool_) for m in more]
    program = export.export(jax.jit(function))(*arguments)
    try:
        return export.deserialize(program.serialize())
    except ImportError:  # without flatbuffers
        return program


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("masked", "perforated", "unit") else pytest.mark.slow)
        for n in OPERATIONS
    ],
)
def test_operations_of_any_batch(name):
    program, operation = exported(OPERATIONS[name], (5, 4, 6), (5, 4)), jax.jit(OPERATIONS[name])
    rng = np.random.default_rng(2)
    for n in (1, 3):
        x = jnp.asarray(rng.standard_normal((n, 5, 4, 6)), jnp.float32)
        for share in (0.2, 1.0):
            mask = jnp.asarray(rng.random((n, 5, 4)) < share)
            expected = operation(x, mask)
            np.testing.assert_allclose(program.call(x, mask), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_any_batch():
    def gradient(x, mask):
        return jax.grad(lambda x: jnp.sum(masked_conv(x, W, mask, implementation="xla") ** 2))(x)

    program = exported(gradient, (5, 4, 6), (5, 4))
    x = jnp.ones((3, 5, 4, 6))
    mask = jnp.asarray(np.random.default_rng(2).random((3, 5, 4)) < 0.3)
    np.testing.assert_allclose(program.call(x, mask), gradient(x, mask), rtol=1e-4, atol=1e-5)


def test_a_perforated_network_of_any_batch():
    model, x = Plain(), jnp.ones((3, 8, 8, 3))
    values = jax.jit(model.init)(jax.random.key(0), x)
    layers = conv_layers(model, values, (8, 8, 3))
    plan = make_plan(jax.random.key(1), layers, {"conv1": 0.5, "conv3": 0.6})
    network = perforate(model, values, plan)
    program = exported(lambda x: network.apply(values, x), (8, 8, 3))
    np.testing.assert_allclose(
        program.call(x), jax.jit(network.apply)(values, x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("execution", ["dense", pytest.param("skipping", marks=pytest.mark.slow)])
def test_a_network_of_adaptive_depth_of_any_batch(execution):
    model = bottleneck("sact", head_norm=False)
    values = variables(model, bias=-0.5)

    def logits(x):
        return model.apply(values, x, execution=execution)

    x = jnp.asarray(np.random.default_rng(2).standard_normal((3, 8, 8, 3)), jnp.float32)
    found = exported(logits, (8, 8, 3)).call(x)
    np.testing.assert_allclose(found, jax.jit(logits)(x), rtol=1e-4, atol=1e-5)
