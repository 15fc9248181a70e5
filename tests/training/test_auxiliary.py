"""Training of networks with auxiliary classifiers and batch statistics, against NumPy."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_training import CLASSES, with_values
from tolerances import close

from adaptive_nets.models import ModelOutput
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.setup import set_up

pytestmark = pytest.mark.core
MOMENTUM = 0.9


class Branched(nn.Module):
    """Normalised pixels, an auxiliary classifier on them, a hidden layer, the classifier."""

    heads: int = 2

    def __call__(self, x, train=False):
        return self.full_output(x, train).logits

    @nn.compact
    def full_output(self, x, train=False):
        x = x.reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, name="bn")(x)
        auxiliary = ()
        if train or self.is_initializing():
            auxiliary = tuple(nn.Dense(CLASSES, name=f"aux{i}")(x) for i in range(self.heads))
        x = nn.relu(nn.Dense(7, name="fc1")(x))
        logits = nn.Dense(CLASSES, name="fc2")(x)
        return ModelOutput(logits, auxiliary if train else ())


def trained(config, dataset, *, steps, objective=None, model=None):
    chosen = objective or classification()
    task = classification_task(model or Branched(), lambda timing: chosen)
    setup = set_up(task, config, dataset, seed=0)
    return setup.feed.advance(setup.create_state(), 0, steps), setup


def inputs(dataset):
    images = dataset.train.images / 255.0
    return (images - images.mean()).astype(np.float32).reshape(len(images), -1)


def batches(setup, size, steps):
    order = np.asarray(setup.feed.order_of(jnp.int32(0)))
    return [order[size * i : size * (i + 1)] for i in range(steps)]


def statistics(state):
    return jax.device_get(state.model_state["batch_stats"]["bn"])


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_step_is_what_optax_and_the_weighted_losses_say(config, dataset, weight):
    objective = classification(label_smoothing=0.1, auxiliary_weight=weight)
    state, setup = trained(config, dataset, steps=1, objective=objective)
    start = jax.device_get(setup.create_state())
    (chosen,) = batches(setup, 8, 1)
    x, labels = inputs(dataset)[chosen], dataset.train.labels[chosen]

    def loss(params):
        p = params["bn"]
        normed = (x - x.mean(0)[None]) / jnp.sqrt(x.var(0)[None] + 1e-5)
        z = normed * p["scale"][None] + p["bias"][None]
        dense = lambda name, z: z @ params[name]["kernel"] + params[name]["bias"][None]  # noqa: E731
        logits = dense("fc2", jax.nn.relu(dense("fc1", z)))
        losses = [logits, dense("aux0", z), dense("aux1", z)]
        means = [jnp.mean(cross_entropy(each, labels, label_smoothing=0.1)) for each in losses]
        return means[0] + weight * (means[1] + means[2]), means

    gradient, each = jax.jit(jax.grad(loss, has_aux=True))(start.params)
    optimiser = optax.adam(0.01)
    updates, _ = jax.jit(optimiser.update)(gradient, optimiser.init(start.params))
    expected = optax.apply_updates(start.params, updates)
    found = jax.device_get(state.params)
    # Adam's first step is the sign of the gradient, so what is as good as zero is left out.
    for a, b, g in zip(*map(jax.tree.leaves, (found, expected, gradient)), strict=True):
        clear = np.abs(g) > 1e-5
        np.testing.assert_allclose(a[clear], b[clear], atol=1e-4)
        assert clear.any()
    values = {name: mean.value() for name, mean in state.metrics.items()}
    assert values["nll"] == pytest.approx(float(each[0]), rel=1e-4)
    assert values["auxiliary_nll_1"] == pytest.approx(float(each[1]), rel=1e-4)
    assert values["auxiliary_nll_2"] == pytest.approx(float(each[2]), rel=1e-4)
    total = values["nll"] + weight * (values["auxiliary_nll_1"] + values["auxiliary_nll_2"])
    assert values["loss"] == pytest.approx(total, rel=1e-5)


def test_without_heads_nothing_is_added(config, dataset):
    state, _ = trained(config, dataset, steps=1, model=Branched(heads=0))
    values = {name: mean.value() for name, mean in state.metrics.items()}
    assert set(values) == {"loss", "nll", "error"}
    assert values["loss"] == pytest.approx(values["nll"], rel=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_running_statistics_are_of_whole_batches_or_of_their_parts(config, dataset, parts):
    """On four devices a batch is normalised as one; parts follow one another."""
    config = with_values(config, data={"accumulation": parts})
    state, setup = trained(config, dataset, steps=3)
    mean, var = np.zeros(30), np.ones(30)
    for chosen in batches(setup, 8, 3):
        for part in range(parts):
            x = inputs(dataset)[chosen[part::parts]].astype(np.float64)
            mean = MOMENTUM * mean + (1 - MOMENTUM) * x.mean(0)
            var = MOMENTUM * var + (1 - MOMENTUM) * x.var(0)
    found = statistics(state)
    close(found["mean"], mean, terms=100)
    close(found["var"], var, terms=100)


def test_statistics_carry_on_between_groups_of_steps(config, dataset):
    together, setup = trained(config, dataset, steps=4)
    state, step = setup.create_state(), 0
    for count in (1, 3):
        state = setup.feed.advance(state, step, count)
        step += count
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluation_takes_averaged_parameters_and_running_statistics(config, dataset):
    config = with_values(config, optimiser={"ema_decay": 0.5})
    state, setup = trained(config, dataset, steps=3)
    assert set(state.ema) == set(state.params)
    assert set(state.eval_variables) == {"params", "batch_stats"}
    result = setup.evaluate(state.eval_variables, setup.test)
    images = dataset.test.images / 255.0 - (dataset.train.images / 255.0).mean()
    x = images.reshape(len(images), -1)
    params, running = jax.device_get(state.ema), statistics(state)
    x = (x - running["mean"]) / np.sqrt(running["var"] + 1e-5)
    x = x * params["bn"]["scale"] + params["bn"]["bias"]
    x = np.maximum(x @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    logits = x @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    nll = -log_probs[np.arange(len(x)), dataset.test.labels].mean()
    assert result["nll"] == pytest.approx(nll, rel=1e-4)
    assert result["count"] == 22
