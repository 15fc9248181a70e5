"""Densities and baseline priors against SciPy, integrals and sample moments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tolerances import close

from adaptive_nets.variational import multiplicative_variance
from adaptive_nets.variational.deep_weight_prior import (
    INITIAL_RATE_LOGIT,
    Gaussian,
    fit_gaussian,
    floored_variance,
    kl_standard_normal,
    kl_truncated_log_uniform,
    l2_penalty,
    log_normal,
    normal_entropy,
    truncated_log_alpha,
)

pytestmark = pytest.mark.core


def correlated(rng, count=400, size=(3, 2)):
    mixing = rng.normal(size=(6, 6))
    return (rng.normal(size=(count, 6)) @ mixing).reshape(count, *size).astype(np.float32)


def test_log_normal_and_entropy_are_those_of_scipy(rng):
    x, mean = rng.normal(size=(2, 40))
    variance = rng.uniform(0.01, 4, size=40)
    normal = stats.norm(mean, np.sqrt(variance))
    found = log_normal(*map(jnp.asarray, (x,)), Gaussian(jnp.asarray(mean), jnp.asarray(variance)))
    np.testing.assert_allclose(found, normal.logpdf(x), rtol=1e-4)
    close(normal_entropy(np.log(variance)), normal.entropy(), terms=4)


def test_divergence_from_the_standard_normal_is_the_integral(rng):
    mean, log_variance = rng.normal(size=5), rng.uniform(-3, 1, size=5)
    expected = []
    for m, v in zip(mean, np.exp(log_variance), strict=True):
        normal = stats.norm(m, np.sqrt(v))
        grid = np.linspace(m - 12 * np.sqrt(v), m + 12 * np.sqrt(v), 20_001)
        ratio = normal.logpdf(grid) - stats.norm.logpdf(grid)
        expected.append(np.trapezoid(normal.pdf(grid) * ratio, grid))
    np.testing.assert_allclose(kl_standard_normal(mean, log_variance), expected, rtol=1e-5)
    assert float(kl_standard_normal(0.0, 0.0)) == 0


def test_a_variance_is_never_below_its_floor():
    found = floored_variance(jnp.array([-1e4, -50.0, 0.0, 30.0]), 1e-4)
    np.testing.assert_allclose(found, [1e-4, 1e-4, np.log(2) + 1e-4, 30.0], rtol=1e-5)
    assert np.isfinite(log_normal(jnp.float32(3), Gaussian(jnp.float32(0), found[0])))


def test_truncated_log_uniform_is_the_polynomial_and_stops_at_rate_one():
    alpha = np.array([1e-6, 0.1, 0.5, 1.0])
    expected = -0.5 * np.log(alpha) - 1.16145124 * alpha + 1.50204118 * alpha**2
    expected -= 0.58629921 * alpha**3
    np.testing.assert_allclose(kl_truncated_log_uniform(np.log(alpha)), expected, rtol=1e-5)
    beyond = jnp.array([0.5, 9.0])
    np.testing.assert_allclose(kl_truncated_log_uniform(beyond), expected[-1], rtol=1e-5)
    assert np.all(jax.grad(lambda a: kl_truncated_log_uniform(a).sum())(beyond) == 0)
    # The divergence decreases with the rate: more noise is closer to the prior.
    assert np.all(np.diff(kl_truncated_log_uniform(np.linspace(-8, 0, 50))) < 0)


def test_polynomial_is_the_divergence_up_to_its_constant():
    """KL = const − ½ log α + E log|1 + √α·ε|, by the trapezoidal rule."""

    def exact(alpha):
        grid = np.linspace(-12, 12, 2_000_002)
        expected = np.trapezoid(stats.norm.pdf(grid) * np.log(abs(1 + np.sqrt(alpha) * grid)), grid)
        return expected - 0.5 * np.log(alpha)

    shift = float(kl_truncated_log_uniform(np.log(0.1))) - exact(0.1)
    for alpha in (0.2, 0.6, 1.0):
        assert float(kl_truncated_log_uniform(np.log(alpha))) == pytest.approx(
            exact(alpha) + shift, abs=0.01
        )


def test_rates_of_the_truncated_posterior_are_below_one():
    log_alpha = truncated_log_alpha(jnp.array([INITIAL_RATE_LOGIT, -200.0, 200.0]))
    np.testing.assert_allclose(log_alpha, [-2 - np.log1p(np.exp(-2)), -200, 0], atol=1e-6)
    variance = multiplicative_variance(jnp.full(3, 2.0), log_alpha)
    assert float(variance[0]) == pytest.approx(4 / (1 + np.exp(2)), rel=1e-5)


def test_fitted_gaussian_has_the_density_of_scipy(rng):
    slices = correlated(rng)
    gaussian = fit_gaussian(slices, floor=1e-4)
    flat = slices.reshape(len(slices), -1).astype(np.float64)
    covariance = np.cov(flat.T, bias=True) + 1e-4 * np.eye(6)
    expected = stats.multivariate_normal(flat.mean(axis=0), covariance).logpdf(flat[:50])
    np.testing.assert_allclose(gaussian.log_density(slices[:50]), expected, rtol=1e-4, atol=1e-3)
    assert gaussian.kernel_size == (3, 2)
    assert gaussian.log_density(np.zeros((0, 3, 2))).shape == (0,)


def test_divergence_from_the_gaussian_is_the_mean_log_ratio(key, rng):
    gaussian = fit_gaussian(correlated(rng))
    mean, log_variance = 0.5 * rng.normal(size=(3, 2)), rng.uniform(-2, 0, size=(3, 2))
    found = float(gaussian.kl_divergence(mean[None], log_variance[None])[0])
    noise = rng.normal(size=(40_000, 3, 2))
    w = mean + np.exp(0.5 * log_variance) * noise
    log_q = stats.norm(mean, np.exp(0.5 * log_variance)).logpdf(w).sum(axis=(1, 2))
    ratio = log_q - np.asarray(gaussian.log_density(w))
    assert found == pytest.approx(ratio.mean(), abs=5 * ratio.std() / 200)


def test_divergence_of_a_diagonal_gaussian_from_itself_is_zero(rng):
    log_variance = rng.uniform(-2, 0, size=(1, 3, 2)).astype(np.float32)
    deviations = np.exp(0.5 * log_variance[0]).ravel()
    gaussian = fit_gaussian(correlated(rng))
    gaussian = type(gaussian)(gaussian.mean, jnp.diag(deviations))
    found = gaussian.kl_divergence(gaussian.mean[None], log_variance)
    np.testing.assert_allclose(found, 0, atol=1e-5)


def test_samples_of_the_gaussian_have_its_moments(key, rng):
    gaussian = fit_gaussian(correlated(rng))
    samples = np.asarray(jax.jit(gaussian.sample, static_argnums=1)(key, 20_000)).reshape(-1, 6)
    covariance = np.asarray(gaussian.cholesky @ gaussian.cholesky.T)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.05 * covariance.max())
    deviation = np.sqrt(np.diagonal(covariance) / len(samples))
    assert np.all(abs(samples.mean(axis=0) - np.ravel(gaussian.mean)) < 5 * deviation)
    assert gaussian.sample(key, 0).shape == (0, 3, 2)


def test_few_and_constant_slices_need_the_floor(rng, complains):
    gaussian = fit_gaussian(np.ones((2, 3, 3)), floor=1e-2)
    np.testing.assert_allclose(gaussian.cholesky, 0.1 * np.eye(9), atol=1e-7)
    complains(lambda: fit_gaussian(np.ones((1, 3, 3))), "(1, 3, 3)", "at least two")
    complains(lambda: fit_gaussian(np.full((4, 3, 3), np.nan)), "finite")
    complains(lambda: fit_gaussian(np.ones((4, 3, 3)), floor=0.0), "floor is 0.0", "underflows")
    complains(lambda: fit_gaussian(np.ones((4, 3, 3)), floor=float("nan")), "floor is nan")
    large = 1e6 * np.ones((1, 3, 3)) * rng.normal(size=(8, 1, 1))
    complains(lambda: fit_gaussian(large, floor=1e-12), "a variance of the slices underflows")
    complains(lambda: gaussian.log_density(np.ones((2, 5, 5))), "5x5", "3x3")
    complains(
        lambda: gaussian.kl_divergence(np.ones((2, 3, 3)), np.ones((1, 3, 3))), "log_variance"
    )


def test_l2_penalty_is_that_of_convolutions_with_their_biases():
    params = {
        "conv1": {"kernel": jnp.full((3, 3, 1, 2), 2.0), "bias": jnp.ones(2)},
        "conv2": {"kernel": jnp.ones((1, 1, 2, 2))},
        "fc": {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)},
    }
    assert float(l2_penalty(params, 0.5)) == pytest.approx(0.5 * (18 * 4 + 2 + 4))
    assert float(l2_penalty(params, 1.0, layers="conv2")) == 4
    assert float(l2_penalty({}, 1.0)) == 0
    gradient = jax.grad(lambda p: l2_penalty(p, 0.5))(params)
    np.testing.assert_array_equal(gradient["conv1"]["kernel"], params["conv1"]["kernel"])
    assert not np.any(gradient["fc"]["kernel"])
