"""The divergence against the paper's values, numerical integration and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from tolerances import close

from adaptive_nets.variational import kl_log_uniform, log_alpha, noise_variance

pytestmark = pytest.mark.core

# log α, KL by the formula, dKL/dlog α: computed from the paper's constants, four decimals.
FORMULA = [
    (-8.0, 4.6359, -0.4999),
    (-4.0, 2.634, -0.5065),
    (-2.0, 1.5405, -0.6175),
    (0.0, 0.4312, -0.3590),
    (2.0, 0.0684, -0.0669),
    (3.0, 0.0254, -0.0254),
    (5.0, 0.0034, -0.0034),
    (8.0, 0.0002, None),
]


@pytest.mark.parametrize(("rate", "value", "slope"), FORMULA)
def test_values_and_slopes_of_the_paper(rate, value, slope):
    assert float(kl_log_uniform(jnp.float32(rate))) == pytest.approx(value, abs=2.5e-4)
    if slope is not None and abs(rate) < 8:
        assert float(jax.grad(kl_log_uniform)(jnp.float32(rate))) == pytest.approx(
            slope, abs=2.5e-4
        )


@pytest.mark.parametrize("rate", [-6.0, -3.0, -1.0, 0.0, 1.0, 3.0])
def test_fit_is_close_to_the_integral(rate):
    """KL = const + ½ log α − E log|ε| with ε ~ N(1, α), shifted to vanish for large α."""

    def expected_log(log_rate):
        deviation = np.exp(log_rate / 2)

        def integrand(t):
            return np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi) * np.log(abs(1 + deviation * t))

        at_zero = -1 / deviation
        parts = [(-np.inf, min(at_zero, 0) - 1), (min(at_zero, 0) - 1, at_zero)]
        parts += [(at_zero, max(at_zero, 0) + 1), (max(at_zero, 0) + 1, np.inf)]
        return sum(integrate.quad(integrand, *part, limit=400)[0] for part in parts)

    def exact(log_rate):
        return expected_log(log_rate) - 0.5 * log_rate

    far = 40.0
    assert float(kl_log_uniform(jnp.float32(rate))) == pytest.approx(
        exact(rate) - exact(far), abs=0.01
    )


def test_clips_at_the_limit():
    inside = kl_log_uniform(jnp.float32(8.0))
    assert float(kl_log_uniform(jnp.float32(50.0))) == float(inside)
    assert float(jax.grad(kl_log_uniform)(jnp.float32(50.0))) == 0.0
    assert float(jax.grad(kl_log_uniform)(jnp.float32(-50.0))) == 0.0


def test_without_limit_the_tails_are_linear_and_zero():
    unlimited = lambda a: kl_log_uniform(a, limit=None)  # noqa: E731
    assert float(unlimited(jnp.float32(-300.0))) == pytest.approx(150 + 0.63576, rel=1e-6)
    assert float(unlimited(jnp.float32(300.0))) == pytest.approx(0.0, abs=1e-6)
    assert float(jax.grad(unlimited)(jnp.float32(-300.0))) == pytest.approx(-0.5)
    rates = jnp.linspace(-8, 8, 201)
    close(unlimited(rates), kl_log_uniform(rates), terms=10)


def test_decreases_with_the_dropout_rate():
    values = np.asarray(kl_log_uniform(jnp.linspace(-8, 8, 1001)))
    assert np.all(np.diff(values) < 0)


def test_log_alpha_is_the_definition(rng):
    theta = rng.normal(size=(7, 5)) * 10.0 ** rng.integers(-6, 2, size=(7, 5))
    log_sigma2 = rng.normal(size=(7, 5)) * 5
    expected = log_sigma2 - np.log(theta**2)
    close(
        log_alpha(jnp.asarray(theta, jnp.float32), jnp.asarray(log_sigma2, jnp.float32)), expected
    )


def test_log_alpha_of_a_zero_weight_is_large_with_a_finite_gradient():
    theta, log_sigma2 = jnp.zeros(3), jnp.full(3, -10.0)
    assert np.all(np.asarray(log_alpha(theta, log_sigma2)) > 100)
    total = lambda t, s: jnp.sum(kl_log_uniform(log_alpha(t, s)))  # noqa: E731
    for gradient in jax.grad(total, argnums=(0, 1))(theta, log_sigma2):
        assert np.all(np.isfinite(gradient))


def test_float64_process():
    with jax.enable_x64(True):
        theta, log_sigma2 = jnp.float64(0.3), jnp.float64(-2.0)
        rate = log_alpha(theta, log_sigma2)
        assert rate.dtype == jnp.float64
        assert float(rate) == pytest.approx(-2.0 - np.log(0.09), rel=1e-14)
        assert kl_log_uniform(rate).dtype == jnp.float64


def test_gradient_against_finite_differences(rng):
    with jax.enable_x64(True):
        rates = jnp.asarray(rng.uniform(-7.5, 7.5, size=50))
        gradient = jax.vmap(jax.grad(kl_log_uniform))(rates)
        step = 1e-6
        numeric = (kl_log_uniform(rates + step) - kl_log_uniform(rates - step)) / (2 * step)
        np.testing.assert_allclose(gradient, numeric, atol=1e-8)


def test_noise_is_exp_of_the_clipped_rate_times_the_squared_weight(key):
    theta = jax.random.normal(key, (200,))
    log_sigma2 = jax.random.uniform(key, (200,), minval=-14.0, maxval=14.0)
    rates = np.asarray(log_alpha(theta, log_sigma2), np.float64)
    assert (rates > 8).any()
    assert (rates < -8).any()
    assert (abs(rates) < 8).any()
    expected = np.exp(np.clip(rates, -8, 8)) * np.asarray(theta, np.float64) ** 2
    np.testing.assert_allclose(noise_variance(theta, log_sigma2), expected, rtol=1e-5)


def test_noise_feels_the_variance_within_the_limit_and_the_weight_beyond():
    by_theta, by_variance = (
        jax.vmap(jax.grad(noise_variance, argnum))(
            jnp.array([0.5, 0.5, 0.0]), jnp.array([-1.0, 12.0, -1.0])
        )
        for argnum in (0, 1)
    )
    np.testing.assert_allclose(by_theta, [0.0, np.exp(8.0), 0.0], rtol=1e-6)
    np.testing.assert_allclose(by_variance, [np.exp(-1.0), 0.0, 0.0], rtol=1e-6)
