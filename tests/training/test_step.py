"""One step: accumulation, averaging, precision, sharding, failure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_training import CLASSES, network, with_values

from adaptive_nets.layers import SparseVDLayers
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.config import MeshConfig
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.mesh import check_batch, make_mesh, path_name, state_shardings
from adaptive_nets.training.setup import set_up
from adaptive_nets.training.state import HEALTHY, is_healthy

pytestmark = pytest.mark.core


def trained(config, dataset, *, steps=3, model=None, objective=None, seed=0):
    """State after some steps, with its set-up."""
    chosen = objective or classification()
    task = classification_task(model or network(), lambda timing: chosen)
    setup = set_up(task, config, dataset, seed=seed)
    return setup.feed.advance(setup.create_state(), 0, steps), setup


def leaves(state):
    return jax.device_get(jax.tree.leaves(state.params))


def assert_close(first, second, atol):
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def test_a_step_is_what_optax_and_the_loss_say(config, dataset):
    """The whole machinery against four lines with everything spelt out."""
    state, setup = trained(config, dataset, steps=2)
    model, params = network(), setup.create_state().params
    optimiser = optax.adam(0.01)
    opt_state = optimiser.init(params)
    order = np.asarray(setup.feed.order_of(jnp.int32(0)))
    images = dataset.train.images / 255.0
    images = (images - images.mean()).astype(np.float32)
    for step in range(2):
        chosen = order[8 * step : 8 * step + 8]

        def loss(params, chosen=chosen):
            logits = model.apply({"params": params}, images[chosen])
            return jnp.mean(cross_entropy(logits, dataset.train.labels[chosen]))

        updates, opt_state = optimiser.update(jax.grad(loss)(params), opt_state)
        params = optax.apply_updates(params, updates)
    for a, b in zip(leaves(state), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_gives_the_whole_batchs_update(config, dataset, parts):
    whole, _ = trained(config, dataset)
    divided, _ = trained(with_values(config, data={"accumulation": parts}), dataset)
    assert_close(whole, divided, 1e-5)
    for name in whole.metrics:
        assert divided.metrics[name].value() == pytest.approx(whole.metrics[name].value(), rel=1e-5)


def test_grouping_steps_does_not_show(config, dataset):
    together, setup = trained(config, dataset, steps=5)
    state, step = setup.create_state(), 0
    for count in (1, 3, 1):
        state = setup.feed.advance(state, step, count)
        step += count
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_moving_average_follows_its_recurrence(config, dataset):
    config = with_values(config, optimiser={"ema_decay": 0.9})
    states = [trained(config, dataset, steps=n)[0] for n in (0, 1, 2)]
    expected = leaves(states[0])
    for state in states[1:]:
        expected = [0.9 * e + 0.1 * p for e, p in zip(expected, leaves(state), strict=True)]
    for e, ema in zip(expected, jax.tree.leaves(states[2].ema), strict=True):
        np.testing.assert_allclose(e, ema, atol=1e-6)
    assert states[2].eval_variables["params"] is states[2].ema


def test_without_averaging_the_parameters_are_evaluated(config, dataset):
    state, _ = trained(config, dataset, steps=1)
    assert state.ema == {}
    assert state.eval_variables["params"] is state.params


def test_bfloat16_computes_low_and_keeps_parameters_in_float32(config, dataset):
    low, _ = trained(config, dataset, model=network(dtype=jnp.bfloat16))
    full, _ = trained(config, dataset)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low.params))
    assert low.metrics["loss"].value() == pytest.approx(full.metrics["loss"].value(), rel=0.05)
    assert low.metrics["loss"].value() != full.metrics["loss"].value()


def test_a_penalty_is_added_and_reported(config, dataset):
    objective = classification(penalty=lambda params, step: {"size": 1.0 + 0.0 * step})
    state, _ = trained(config, dataset, steps=2, objective=objective)
    values = {name: mean.value() for name, mean in state.metrics.items()}
    assert values["size"] == 1.0
    assert values["loss"] == pytest.approx(values["nll"] + 1.0, rel=1e-5)


@pytest.mark.parametrize("kind", ["plain", pytest.param("sparse", marks=pytest.mark.slow)])
def test_dividing_the_model_changes_rounding_only(config, dataset, kind):
    layers = {"layers": SparseVDLayers()} if kind == "sparse" else {}
    states = []
    for model_axis, shard_from in ((1, 0), (2, 0), (4, 10**9)):
        mesh = {"model": model_axis, "shard_from": shard_from}
        state, _ = trained(
            with_values(config, mesh=mesh), dataset, model=network(**layers), steps=4
        )
        states.append(state)
        spec = state.params["fc1"]["kernel"].sharding.spec
        assert ("model" in tuple(spec)) == (model_axis == 2)
        if kind == "sparse":
            assert state.params["fc1"]["log_sigma2"].sharding.spec == spec
        assert state.opt_state[0].mu["fc1"]["kernel"].sharding.spec == spec
    for other in states[1:]:
        assert_close(states[0], other, 1e-5)


def test_shardings_leave_what_does_not_divide(config, dataset):
    mesh = make_mesh(MeshConfig(model=4))
    tree = {
        "a": {"kernel": jax.ShapeDtypeStruct((3, 8), jnp.float32)},
        "b": {"kernel": jax.ShapeDtypeStruct((3, 6), jnp.float32)},
        "c": {"bias": jax.ShapeDtypeStruct((8,), jnp.float32)},
    }
    chosen = state_shardings(mesh, tree, shard_from=1)
    assert tuple(chosen["a"]["kernel"].spec) == (None, "model")
    assert not any(chosen["b"]["kernel"].spec)
    assert not any(chosen["c"]["bias"].spec)


def test_a_batch_that_does_not_divide_is_named():
    mesh = make_mesh(MeshConfig())
    with pytest.raises(
        UserError,
        match=r"--data\.batch-size is 10, which .* 4 devices; .* of 4, such as 8 or 12",
    ):
        check_batch(mesh, 10)
    with pytest.raises(UserError, match=r"of 12, such as 24 or 36"):
        check_batch(mesh, 30, accumulation=6)
    with pytest.raises(UserError, match=r"of 4, such as 4"):
        check_batch(mesh, 3)
    check_batch(mesh, 12, accumulation=3)


def test_a_model_axis_that_does_not_divide_is_named():
    with pytest.raises(UserError, match=r"--mesh\.model is 3; expected a divisor of the 4"):
        make_mesh(MeshConfig(model=3))


def test_the_first_bad_step_is_remembered(config, dataset):
    def penalty(params, step):
        return {"trap": jnp.where(step == 2, jnp.nan, 0.0) + 0.0 * params["fc1"]["bias"][0]}

    objective = classification(penalty=penalty)
    state, _ = trained(config, dataset, steps=2, objective=objective)
    assert int(state.failed_step) == HEALTHY
    assert bool(is_healthy(state))
    state, _ = trained(config, dataset, steps=5, objective=objective)
    assert int(state.failed_step) == 2
    assert not bool(is_healthy(state))


def test_dropout_and_noise_differ_between_steps_and_seeds(config, dataset):
    model = network(layers=SparseVDLayers(log_sigma2_init=-2.0))
    first, _ = trained(config, dataset, model=model, steps=1)
    again, _ = trained(config, dataset, model=model, steps=1)
    other, _ = trained(config, dataset, model=model, steps=1, seed=1)
    assert_close(first, again, 0.0)
    assert not np.array_equal(leaves(first)[1], leaves(other)[1])
    keys = {
        tuple(jax.device_get(jax.random.key_data(first.replace(step=step).key(purpose))).tolist())
        for step in range(3)
        for purpose in range(3)
    }
    assert len(keys) == 9


def test_paths_are_readable(config, dataset):
    state, _ = trained(config, dataset, steps=1)
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert "params/fc1/kernel" in names
    assert "opt_state/0/mu/fc1/kernel" in names
    assert len(set(names)) == len(names)
    assert state.params["fc2"]["bias"].shape == (CLASSES,)
