"""Under `jax.shard_map` with its checks, with a sharded batch and weights of every device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import bottleneck, variables
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from kernels import compact_tensor, masked_conv, masked_unit, perforated_conv

_RNG = np.random.default_rng(0)
KEPT = _RNG.random((5, 4)) < 0.5
KEPT[0, 0] = True


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def twice_perforated(x, w, mask):
    del mask
    values = perforated_conv(x, w, KEPT, fill="compact", implementation="xla")
    return perforated_conv(compact_tensor(values, KEPT), w, KEPT, implementation="xla")


OPERATIONS = {
    "masked": lambda x, w, mask: masked_conv(x, w, mask, implementation="xla"),
    "perforated": twice_perforated,
    "unit": lambda x, w, mask: masked_unit(x, mask, (w, w), scale=jnp.ones(6)),
    "dense": lambda x, w, mask: masked_conv(x, w, mask, implementation="dense"),
    "sparse unit": lambda x, w, mask: masked_unit(x, mask, (w, w), execution_path="sparse"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if i < 2 else pytest.mark.slow) for i, n in enumerate(OPERATIONS)],
)
def test_values_and_derivatives_are_those_of_one_device(name):
    operation = OPERATIONS[name]
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((4, 5, 4, 6)), 0.3 * rng.standard_normal((3, 3, 6, 6))
    x, w = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    mask = jnp.asarray(rng.random((4, 5, 4)) < 0.4)

    def loss(x, w, mask):
        return jnp.mean(jnp.square(operation(x, w, mask)))

    def sharded(x, w, mask):
        local = jax.shard_map(
            lambda x, w, mask: jax.lax.pmean(loss(x, w, mask), "data"),
            mesh=mesh(),
            in_specs=(P("data"), P(), P("data")),
            out_specs=P(),
        )
        return local(x, w, mask)

    def derivatives(loss):
        value, gradient = jax.value_and_grad(loss, (0, 1))(x, w, mask)
        tangent = jax.jvp(lambda w: loss(x, w, mask), (w,), (w,))[1]
        return value, gradient, tangent

    def inside(x, w, mask):
        return jax.grad(lambda w: jax.lax.pmean(loss(x, w, mask), "data"))(w)

    expected, found = (jax.jit(functools.partial(derivatives, f))() for f in (loss, sharded))
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6),
        found,
        expected,
    )
    specs = (P("data"), P(), P("data"))
    ours = jax.jit(jax.shard_map(inside, mesh=mesh(), in_specs=specs, out_specs=P()))(x, w, mask)
    np.testing.assert_allclose(ours, expected[1][1], rtol=1e-4, atol=1e-6)


def test_a_skipping_network_gives_the_logits_of_one_device():
    model = bottleneck("sact", head_norm=False)
    values = variables(model, bias=-0.5)
    images = jnp.asarray(np.random.default_rng(2).standard_normal((4, 8, 8, 3)), jnp.float32)

    def logits(values, x):
        return model.apply(values, x, execution="skipping")

    sharded = jax.shard_map(logits, mesh=mesh(), in_specs=(P(), P("data")), out_specs=P("data"))
    found, expected = jax.jit(sharded)(values, images), jax.jit(logits)(values, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
