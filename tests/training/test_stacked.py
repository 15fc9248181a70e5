"""Many networks in one program: each trains as if it were alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.stacked import StackedNetworks, stacked_task
from adaptive_nets.training.task import Task
from adaptive_nets.variational.deep_weight_prior import l2_penalty

COUNT = 3


@pytest.fixture
def module():
    return create_model("fconv_mnist", num_classes=4, widths=(2, 3))


def _penalty(params):
    return l2_penalty(params, 0.1)


def test_a_step_of_all_is_a_step_of_each(key, rng, module):
    networks = StackedNetworks(module, COUNT)
    images = jnp.asarray(rng.normal(size=(5, 28, 28, 1)), jnp.float32)
    labels = jnp.asarray([0, 1, 2, 3, 0])
    stacked = networks.init(key, images[:1])["params"]
    task: Task = stacked_task(networks, penalty=_penalty)
    optimiser = optax.adam(1e-2)

    def loss_of_all(params):
        output = networks.apply({"params": params}, images, train=True, rngs={"noise": key})
        batch = {"image": images, "label": labels}
        return task.objective(None)(output, batch, params, jnp.int32(0))[0]  # pyright: ignore[reportArgumentType]

    def loss_of_one(params):
        logits = module.apply({"params": params}, images, train=True)
        return jnp.mean(cross_entropy(logits, labels)) + _penalty(params)

    def step(loss, params):
        updates, _ = optimiser.update(jax.grad(loss)(params), optimiser.init(params), params)
        return optax.apply_updates(params, updates)

    together = step(loss_of_all, stacked)
    for number in range(COUNT):
        own = jax.tree.map(lambda leaf, number=number: leaf[number], (stacked, together))
        alone = step(loss_of_one, own[0])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), own[1], alone)
    first, second = (jax.tree.map(lambda leaf, n=n: leaf[n], stacked) for n in (0, 1))
    assert not np.array_equal(first["conv1"]["kernel"], second["conv1"]["kernel"])


def test_measures_leave_out_padding(key, module):
    networks = StackedNetworks(module, COUNT)
    task = stacked_task(networks)
    logits = jnp.zeros((COUNT, 4, 4)).at[:, :, 1].set(5.0).at[0, 0, 1].set(-5.0)
    batch = {"label": jnp.asarray([1, 1, 0, 0]), "weight": jnp.asarray([1.0, 1.0, 1.0, 0.0])}
    found = task.measures(logits, batch)
    assert found["error"].value() == pytest.approx((1 + 3) / (3 * 3))
    assert dataclasses.asdict(found["nll"])["count"] == 9


def test_no_network_is_refused(module):
    with pytest.raises(UserError, match="count is 0; expected at least one network"):
        StackedNetworks(module, 0)
