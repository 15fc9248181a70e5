"""REINFORCE: the expected gradient over all samples of a small network is the exact one."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import IMAGES, cifar
from tolerances import close

from adaptive_nets.halting import (
    Baseline,
    decision_log_probs,
    expected_next_units,
    log_prob_of_units,
    mask_residual,
)
from adaptive_nets.models.adaptive import blocks as blocks_lib
from adaptive_nets.models.adaptive.blocks import run_probabilistic_block
from adaptive_nets.training.depth import (
    BASELINE,
    SampledDepth,
    SampledOutput,
    sampled_depth,
    update_reward_baseline,
)

pytestmark = pytest.mark.core

UNITS, BLOCKS, POSITIONS, CLASSES, TAU = 3, 2, 2, 3, 0.5
LABELS = jnp.array([1])
# Depth of each position in each block.
DEPTHS = np.array(list(itertools.product(range(1, UNITS + 1), repeat=BLOCKS * POSITIONS))).reshape(
    -1, BLOCKS, 1, POSITIONS
)


def unit(weights):
    """Residual that mixes both positions, so a halted position still changes its neighbour."""

    def run(x, mask):
        residual = jnp.tanh(x @ weights["own"] + x[:, :, ::-1] @ weights["other"])
        return x + mask_residual(residual, None if mask is None else mask)

    return run


def head(weights):
    return lambda x: x[..., 0] * weights[0] + x[..., 1] * weights[1] + weights[2]


def network(params, depths, monkeypatch):
    """Runs two blocks of three units on a map of 1x2 with forced depths; returns its output."""
    x = jnp.asarray([[[[0.3, -0.4], [0.9, 0.2]]]])
    traces = []
    for block in range(BLOCKS):
        numbers = itertools.count(1)

        def forced(key, probs, block=block, numbers=numbers):
            stops = depths[block, None] == next(numbers)
            return jnp.stack([stops, jnp.ones_like(stops)], axis=-1)

        monkeypatch.setattr(blocks_lib, "sample_indicators", forced)
        x, trace = run_probabilistic_block(
            [
                unit(jax.tree.map(lambda w, at=(block, i): w[at], params["units"]))
                for i in range(UNITS)
            ],
            [head(params["heads"][block, i]) for i in range(UNITS - 1)],
            x,
            mode="discrete",
            groups=None,
            temperature=1.0,
            next_key=lambda: jax.random.key(0),
        )
        traces.append(trace)
    return x.mean((1, 2)) @ params["classifier"], tuple(traces)


@pytest.fixture
def params(rng):
    with jax.enable_x64(True):
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape))  # noqa: E731
        yield {
            "units": {"own": draw(BLOCKS, UNITS, 2, 2), "other": draw(BLOCKS, UNITS, 2, 2)},
            "heads": 0.7 * draw(BLOCKS, UNITS - 1, 3),
            "classifier": draw(2, CLASSES),
        }


def test_gradient_is_that_of_the_expected_loss(params, monkeypatch):
    """With any baseline: none, and one of earlier batches."""
    objective = sampled_depth(lambda step: jnp.asarray(TAU))
    steps = BLOCKS * (UNITS - 1)

    def log_q(traces):
        return sum(trace.log_prob[0] for trace in traces)

    def exact_loss(params):
        """Sum over all depths of q(z)·(−log p(y|x, z) + τ·Σ_k mean over positions of z_k)."""

        def weighted(depths):
            logits, traces = network(params, depths, monkeypatch)
            loss = -jax.nn.log_softmax(logits)[0, LABELS[0]] + TAU * depths.mean((1, 2)).sum()
            return jnp.exp(log_q(traces)) * loss

        return jnp.sum(jax.vmap(weighted)(jnp.asarray(DEPTHS)))

    def one_sample(depths, total, weight):
        def loss(params):
            logits, traces = network(params, depths, monkeypatch)
            baseline = Baseline(jnp.full((steps,), total), weight)
            output = SampledOutput(logits, blocks=traces, baseline=baseline)
            value, _ = objective(output, {"label": LABELS}, params, jnp.int32(0))
            return value, jnp.exp(log_q(traces))

        return jax.value_and_grad(loss, has_aux=True)(params)

    with jax.enable_x64(True):
        value, exact = jax.jit(jax.value_and_grad(exact_loss))(params)
        estimator = jax.jit(jax.vmap(one_sample, in_axes=(0, None, None)))
        for earlier in ((0.0, 0.0), (-1.3, 1.0)):
            (losses, q), gradients = estimator(jnp.asarray(DEPTHS), *earlier)
            close(jnp.sum(q), 1.0, dtype=jnp.float64, terms=100)
            # The cross-entropy is in float32, as in training.
            np.testing.assert_allclose(jnp.sum(q * losses), value, rtol=1e-6)
            estimates = jax.tree.map(lambda g, q=q: jnp.tensordot(q, g, 1), gradients)
            for a, b in zip(jax.tree.leaves(estimates), jax.tree.leaves(exact), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())


def test_steps_sum_to_the_block(rng):
    logits = jnp.asarray(rng.normal(size=(2, 3, 1, 4)), jnp.float32)
    units = jnp.asarray(rng.integers(1, 5, (2, 3, 1)))
    steps = decision_log_probs(logits, units)
    assert steps.shape == (2, 3)
    close(steps.sum(-1), log_prob_of_units(logits, units), terms=12)
    h = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    ran = np.arange(1, 4) <= np.asarray(units)[..., None]
    close(expected_next_units(jax.nn.sigmoid(logits), units), ran * (1 - h[..., :-1]), terms=4)
    one = decision_log_probs(jnp.ones((2, 5, 1)), jnp.ones((2, 5), jnp.int32))
    assert one.shape == (2, 0)


def test_the_first_batch_is_compared_with_its_other_examples():
    rewards = jnp.array([[1.0, -4.0], [2.0, 0.0], [6.0, 1.0]])
    empty = Baseline(jnp.zeros(2), jnp.zeros(()))
    close(empty.for_batch(rewards), [[4.0, 0.5], [3.5, -1.5], [1.5, -2.0]])
    close(empty.for_batch(rewards[:1]), np.zeros((1, 2)))
    started = Baseline(jnp.array([0.2, -0.3]), jnp.asarray(0.1))
    close(started.for_batch(rewards), np.broadcast_to([[2.0, -3.0]], (3, 2)))


def test_a_network_trains_with_it_and_its_baseline_begins_at_the_first_reward():
    network = SampledDepth(cifar("pact").clone(stage_sizes=(3,), widths=(4,)), num_steps=2)
    variables = jax.jit(network.init)(jax.random.key(0), IMAGES)
    assert variables[BASELINE]["total"].shape == (2,)
    state = {kind: tree for kind, tree in variables.items() if kind != "params"}
    batch, rate = {"label": jnp.array([0, 3])}, lambda step: 0.01 + 0.0 * step

    @jax.jit
    def loss(params):
        output, changed = network.apply(
            {"params": params, **state}, IMAGES, train=True, mutable=list(state),
            rngs={"halting": jax.random.key(1)}, method="full_output",
        )  # fmt: skip
        value, metrics = sampled_depth(rate)(output, batch, params, jnp.int32(0))
        return value, update_reward_baseline(rate)(changed, output, batch, jnp.int32(0)), metrics

    value, changed, metrics = loss(variables["params"])
    assert np.isfinite(value)
    # After one update the average is the mean reward of the last step: the log-likelihood.
    average = Baseline(**changed[BASELINE]).value
    close(average[-1], -metrics["nll"].value(), terms=10)
    assert np.all(np.diff(average) > 0), "earlier steps pay for later units"
