"""The truncated geometric prior against its formula and sums over all depths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tolerances import close

from adaptive_nets.halting import (
    act,
    computation_penalty,
    expected_log_prior,
    expected_units,
    kl_from_prior,
    stick_breaking,
    truncated_geometric,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.mark.parametrize("units", [1, 5, 18])
@pytest.mark.parametrize("rate", [-0.7, 0.01, 0.3, 2.0])
def test_probabilities_equal_the_papers_formula(rate, units):
    z = np.arange(1, units + 1)
    formula = (np.exp(rate) - 1) / (1 - np.exp(-rate * units)) * np.exp(-rate * z)
    assert formula.sum() == pytest.approx(1.0)
    with jax.enable_x64(True):
        logs = truncated_geometric(rate, units, dtype=jnp.float64)
        close(jnp.exp(logs), formula, dtype=jnp.float64, terms=400)


def test_prior_without_rate_is_uniform_and_has_a_slope():
    close(jnp.exp(truncated_geometric(0.0, 5)), [0.2] * 5)
    slope = jax.jacobian(lambda rate: truncated_geometric(rate, 5))(0.0)
    close(slope, 3.0 - np.arange(1, 6))


def test_prior_is_finite_at_large_rates():
    close(truncated_geometric(500.0, 3), [0.0, -500.0, -1000.0])


def values_and_slopes(probs, rate):
    gradient = jax.grad(lambda h: expected_log_prior(h, rate).sum())(probs)
    linear = jax.grad(lambda h: -rate * expected_units(h).sum())(probs)
    return expected_log_prior(probs, rate), gradient, linear


@pytest.mark.parametrize("rate", [-0.2, 0.0, 0.05, 1.5])
def test_expectation_equals_the_sum_over_depths(rate, rng):
    probs = rng.random((3, 4, 6))
    with jax.enable_x64(True):
        q = np.asarray(stick_breaking(jnp.asarray(probs)))
        log_p = np.asarray(truncated_geometric(rate, 6, dtype=jnp.float64))
        expected = (q * log_p).sum(-1)
        value, gradient, linear = jax.jit(values_and_slopes)(probs, rate)
        close(value, expected, dtype=jnp.float64, terms=25)
        # Linear in the expected number of units: the gradient is that of −τ·E[z].
        close(gradient, linear, dtype=jnp.float64, terms=9)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_divergence_equals_the_sum_over_depths(rate, rng):
    logits = 3 * rng.normal(size=(4, 5))
    with jax.enable_x64(True):
        q = np.asarray(stick_breaking(jnp.asarray(special.expit(logits))))
        log_p = np.asarray(truncated_geometric(rate, 5, dtype=jnp.float64))
        expected = special.rel_entr(q, np.exp(log_p)).sum(-1)
        close(kl_from_prior(jnp.asarray(logits), rate), expected, dtype=jnp.float64, terms=100)


def test_divergence_of_the_prior_itself_is_zero():
    """Conditional probabilities of the prior: p(l) / P(z ≥ l)."""
    p = np.exp(np.asarray(truncated_geometric(0.5, 6), np.float64))
    conditionals = p / np.flip(np.cumsum(np.flip(p)))
    logits = jnp.asarray(special.logit([*conditionals[:-1].tolist(), 0.5]), jnp.float32)
    assert float(kl_from_prior(logits, 0.5)) == pytest.approx(0.0, abs=1e-6)
    certain = jnp.array([60.0, 0, 0, 0, 0, 0])
    assert float(kl_from_prior(certain, 0.5)) == pytest.approx(-np.log(p[0]), rel=1e-5)


def test_penalty_is_the_mean_over_positions_summed_over_blocks(rng):
    costs = [rng.random((3, 4, 5)), rng.random((3, 2, 2)), rng.random((3,))]
    arrays = [jnp.asarray(cost, jnp.float32) for cost in costs]
    means = [cost.reshape(3, -1).mean(-1) for cost in costs]
    close(computation_penalty(arrays, 0.01), 0.01 * sum(means), terms=20)
    rates = [0.1, 0.2, 0.3]
    weighted = sum(r * m for r, m in zip(rates, means, strict=True))
    close(computation_penalty(arrays, rates), weighted, terms=20)
    close(computation_penalty(arrays, jnp.array(rates)), weighted, terms=20)


def test_penalty_pushes_scores_before_the_last_unit_up():
    """∂(τ·mean ρ)/∂h = −τ/(H·W) before N."""
    scores = jnp.full((1, 2, 2, 4), 0.2).at[0, 0, 0].set(0.995)
    gradient = jax.jit(jax.grad(lambda h: computation_penalty([act(h).ponder_cost], 0.4)[0]))(
        scores
    )
    expected = np.full((1, 2, 2, 4), -0.1)
    expected[..., -1] = 0
    expected[0, 0, 0] = 0
    close(gradient, expected)


def test_bad_arguments_are_one_line():
    with pytest.raises(UserError, match="units is 0; expected a positive integer"):
        truncated_geometric(0.1, 0)
    with pytest.raises(UserError, match="costs is empty"):
        computation_penalty([], 0.1)
    with pytest.raises(UserError, match="rate has 2 values; expected one, or 1"):
        computation_penalty([jnp.ones((2,))], [0.1, 0.2])
