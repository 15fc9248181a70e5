"""Learning rates at the ends of cycles, and the stationary variance of Langevin dynamics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adaptive_nets.ensembling.posterior import (
    ConstantRate,
    CosineCycles,
    PiecewiseRate,
    TriangularCycles,
    cycle_ends,
    cycle_middles,
    langevin_noise,
    last_of_cycles,
    last_steps,
    sgd,
)
from adaptive_nets.ensembling.posterior.langevin import seed_noise

CYCLE = 40


def values(schedule, steps) -> np.ndarray:
    return np.array([float(schedule(step)) for step in steps])


def test_cosine_cycles_start_at_the_peak_and_end_near_zero():
    schedule = CosineCycles(0.2, CYCLE)
    steps = [0, CYCLE // 2, CYCLE - 1, CYCLE, 5 * CYCLE]
    end = 0.1 * (np.cos(np.pi * (CYCLE - 1) / CYCLE) + 1)
    np.testing.assert_allclose(values(schedule, steps), [0.2, 0.1, end, 0.2, 0.2], rtol=1e-4)


def test_triangular_cycles_are_low_in_the_middle():
    schedule = TriangularCycles(5e-2, 5e-4, CYCLE)
    steps = [0, CYCLE // 4, CYCLE // 2, 3 * CYCLE // 4, CYCLE]
    quarter = (5e-2 + 5e-4) / 2
    expected = [5e-2, quarter, 5e-4, quarter, 5e-2]
    np.testing.assert_allclose(values(schedule, steps), expected, rtol=1e-5)


def test_piecewise_rate_has_the_papers_corners():
    schedule = PiecewiseRate(0.1, 1000)
    expected = [0.1, 0.1, 0.1 * (1 + 0.01) / 2, 0.001, 0.001]
    np.testing.assert_allclose(values(schedule, [0, 500, 700, 900, 999]), expected, rtol=1e-5)
    assert values(ConstantRate(0.01), [0, 10**6]) == pytest.approx(0.01)


def test_schedules_can_be_traced():
    for schedule in (PiecewiseRate(0.1, 9), CosineCycles(0.1, 4), TriangularCycles(2.0, 1.0, 4)):
        traced = jax.jit(schedule)(jnp.int32(7))
        np.testing.assert_allclose(traced, schedule(7), rtol=1e-6)


def test_members_are_at_the_ends_and_middles_of_cycles():
    assert cycle_ends(10, 3) == (10, 20, 30)
    assert cycle_middles(10, 3) == (5, 15, 25)
    assert last_of_cycles(10, 2, samples=3, every=2) == (6, 8, 10, 16, 18, 20)


def test_noise_is_added_in_the_last_steps_of_a_cycle_only():
    active = last_steps(5, 2)
    assert [bool(active(step)) for step in range(10)] == 2 * [False, False, False, True, True]
    optimiser = langevin_noise(
        ConstantRate(0.1), temperature=1.0, examples=10, active=last_steps(5, 2)
    )
    state = seed_noise(optimiser.init(jnp.zeros(3)), jax.random.key(1))
    seen = []
    for _ in range(5):
        updates, state = optimiser.update(jnp.zeros(3), state)
        seen.append(bool(jnp.any(updates != 0)))
    assert seen == [False, False, False, True, True]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_langevin_dynamics_sample_a_gaussian(momentum):
    """U(θ) = N a θ²/2 at temperature T has the variance T / (N a)."""
    curvature, examples, temperature, rate = 2.0, 50, 0.5, 0.02
    optimiser = sgd(
        ConstantRate(rate),
        momentum=momentum,
        noise={"temperature": temperature, "examples": examples},
    )
    theta = jnp.zeros(4000)
    state = seed_noise(optimiser.init(theta), jax.random.key(3))

    @jax.jit
    def run(theta, state):
        def body(carry, _):
            theta, state = carry
            updates, state = optimiser.update(curvature * theta, state, theta)
            return (optax.apply_updates(theta, updates), state), None

        (theta, _), _ = jax.lax.scan(body, (theta, state), None, length=300)
        return theta

    found = np.asarray(run(theta, state))
    # The variance of 4,000 independent chains has a standard error of 2 %; discretisation adds 1 %.
    assert np.var(found) == pytest.approx(temperature / (examples * curvature), rel=0.08)
    assert abs(np.mean(found)) < 0.01


def test_the_key_decides_the_noise():
    optimiser = sgd(ConstantRate(0.1), noise={"temperature": 1.0, "examples": 10})

    def first(key):
        state = seed_noise(optimiser.init(jnp.zeros(4)), key)
        return np.asarray(optimiser.update(jnp.zeros(4), state, jnp.zeros(4))[0])

    np.testing.assert_array_equal(first(jax.random.key(0)), first(jax.random.key(0)))
    assert np.all(first(jax.random.key(0)) != first(jax.random.key(1)))
