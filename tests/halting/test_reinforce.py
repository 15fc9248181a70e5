"""The estimator's expectation, by summing over all samples, is the gradient of the expectation."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.halting import (
    expected_units,
    log_prob_of_units,
    log_stick_breaking,
    reinforce_loss,
    rewards_to_go,
    start_baseline,
    update_baseline,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

UNITS, BLOCKS = 3, 2
RATES = (0.3, 0.7)
DEPTHS = list(itertools.product(range(1, UNITS + 1), repeat=BLOCKS))


def block_logits(params, earlier):
    """Heads of block k, which depend on the depth of the block before."""
    k = len(earlier)
    context = jnp.tanh((earlier[0] - 1.7) * params["link"]) if k else 0.0
    return params["heads"][k] + context


def log_likelihood(params, depths):
    return -((params["reward"][depths[0] - 1, depths[1] - 1] - 0.5) ** 2)


def penalty(params, earlier):
    return RATES[len(earlier)] * expected_units(jax.nn.sigmoid(block_logits(params, earlier)))


def terms(params, depths):
    """Log-likelihood, log q and penalties of both blocks at one sample, each float[1]."""
    log_probs = [
        log_prob_of_units(block_logits(params, depths[:k])[None], depths[k][None])
        for k in range(BLOCKS)
    ]
    penalties = [penalty(params, depths[:k])[None] for k in range(BLOCKS)]
    return log_likelihood(params, depths)[None], log_probs, penalties


def expected_loss(params):
    """E_q of the loss by enumeration, with q a function of the parameters."""

    def weighted(depths):
        value, log_probs, penalties = terms(params, depths)
        return jnp.exp(sum(log_probs))[0] * (sum(penalties) - value)[0]

    return jnp.sum(jax.vmap(weighted)(jnp.array(DEPTHS)))


@pytest.fixture
def params(rng):
    with jax.enable_x64(True):
        yield {
            "heads": jnp.asarray(rng.normal(size=(BLOCKS, UNITS))),
            "link": jnp.asarray(rng.normal(size=(UNITS,))),
            "reward": jnp.asarray(rng.normal(size=(UNITS, UNITS))),
        }


@pytest.mark.parametrize("baseline", [pytest.param(0.0, marks=pytest.mark.slow), -1.3, (0.4, -2.0)])
def test_estimator_is_unbiased_with_any_baseline(params, baseline):
    with jax.enable_x64(True):
        value, exact = jax.jit(jax.value_and_grad(expected_loss))(params)

        @jax.jit
        @jax.vmap
        def one_sample(depths):
            def loss(p):
                likelihood, log_probs, penalties = terms(p, depths)
                sampled = reinforce_loss(
                    likelihood, log_probs, penalties, baseline=jnp.array(baseline)
                )
                return sampled[0], jnp.exp(sum(log_probs))[0]

            return jax.value_and_grad(loss, has_aux=True)(params)

        (losses, q), gradients = one_sample(jnp.array(DEPTHS))
        close(jnp.sum(q), 1.0, dtype=jnp.float64, terms=9)
        close(jnp.sum(q * losses), value, dtype=jnp.float64, terms=100)
        for name in exact:
            estimate = jnp.tensordot(q, gradients[name], 1)
            close(estimate, exact[name], dtype=jnp.float64, terms=400, gradient=True)


def test_rewards_count_later_penalties_only():
    rewards = rewards_to_go(
        jnp.array([-1.0, -2.0]), [jnp.array([5.0, 6.0]), jnp.array([0.5, 0.25]), jnp.ones((2,))]
    )
    np.testing.assert_array_equal(rewards, [[-2.5, -2.0, -1.0], [-3.25, -3.0, -2.0]])


def test_log_probability_sums_over_latents_of_an_example(rng):
    logits = jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32)
    units = jnp.asarray(rng.integers(1, 6, (2, 3, 4)))
    logs = np.asarray(log_stick_breaking(logits))
    expected = [
        sum(logs[n, i, j, units[n, i, j] - 1] for i in range(3) for j in range(4)) for n in range(2)
    ]
    close(log_prob_of_units(logits, units), expected, terms=12)


def test_baseline_is_an_unbiased_moving_average(rng):
    rewards = rng.normal(size=(4, 6, 2)) + 3
    baseline = start_baseline(2)
    np.testing.assert_array_equal(baseline.value, [0, 0])
    for batch in rewards:
        baseline = update_baseline(baseline, jnp.asarray(batch, jnp.float32), decay=0.9)
    weights = 0.9 ** np.arange(3, -1, -1)
    expected = (weights[:, None] * rewards.mean(1)).sum(0) / weights.sum()
    close(baseline.value, expected, terms=24)
    first = update_baseline(start_baseline(1), jnp.full((3, 1), -2.5))
    close(first.value, [-2.5])


def test_bad_arguments_are_one_line():
    one = jnp.ones((2,))
    with pytest.raises(UserError, match="log_probs has 2 steps and penalties 1"):
        reinforce_loss(one, [one, one], [one])
    with pytest.raises(
        UserError, match=r"baseline has shape \(3,\); expected one number, \(1,\) or \(2, 1"
    ):
        reinforce_loss(one, [one], [one], baseline=jnp.ones((3,)))
    with pytest.raises(UserError, match=r"num_units has shape \(3,\); expected \(2,\)"):
        log_prob_of_units(jnp.ones((2, 4)), jnp.ones((3,), jnp.int32))
    with pytest.raises(UserError, match="decay is 1"):
        update_baseline(start_baseline(1), jnp.ones((2, 1)), decay=1)
