"""Sampled outputs have the moments that sampling the weights would give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from adaptive_nets.variational import sample_linear

pytestmark = pytest.mark.core
DRAWS = 4000


def convolve(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


CASES = {
    "dense": (jnp.dot, (3, 6), (6, 4)),
    "conv": (convolve, (2, 5, 4, 2), (3, 3, 2, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_mean_and_variance_equal_those_of_sampled_weights(case, key):
    linear, x_shape, w_shape = CASES[case]
    keys = jax.random.split(key, 5)
    x = jax.random.normal(keys[0], x_shape)
    theta = jax.random.normal(keys[1], w_shape)
    sigma2 = jnp.exp(jax.random.normal(keys[2], w_shape))

    local = jax.vmap(lambda k: sample_linear(k, x, theta, sigma2, linear))
    draws = np.asarray(local(jax.random.split(keys[3], DRAWS)))

    def weights(k):
        return linear(x, theta + jnp.sqrt(sigma2) * jax.random.normal(k, w_shape))

    explicit = np.asarray(jax.vmap(weights)(jax.random.split(keys[4], DRAWS)))

    exact_mean = np.asarray(linear(x, theta))
    exact_deviation = np.sqrt(np.asarray(linear(x * x, sigma2)))
    for sample in (draws, explicit):
        error = np.abs(sample.mean(0) - exact_mean) / exact_deviation
        assert error.max() < 5.5 / np.sqrt(DRAWS)
        np.testing.assert_allclose(
            sample.std(0) / exact_deviation, 1.0, atol=5.5 / np.sqrt(2 * DRAWS)
        )


def test_examples_and_positions_get_noise_of_their_own(key):
    x = jnp.ones((2, 4, 4, 1))
    theta, sigma2 = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
    draw = np.asarray(sample_linear(key, x, theta, sigma2, convolve)).ravel()
    assert len(np.unique(draw)) == draw.size


def test_without_variance_it_is_the_linear_map(key):
    x, theta = jax.random.normal(key, (4, 6)), jax.random.normal(key, (6, 3))
    y = sample_linear(key, x, theta, jnp.zeros_like(theta), jnp.dot)
    np.testing.assert_allclose(y, x @ theta, atol=1e-3)


def test_gradient_is_finite_where_inputs_are_zero(key):
    theta, sigma2 = jnp.ones((6, 3)), jnp.full((6, 3), 1e-4)

    def loss(theta, sigma2, x):
        return jnp.sum(sample_linear(key, x, theta, sigma2, jnp.dot) ** 2)

    for gradient in jax.grad(loss, argnums=(0, 1, 2))(theta, sigma2, jnp.zeros((2, 6))):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("size", [0.0, 1e-4, 1.0, 300.0, 60_000.0])
@pytest.mark.parametrize("case", CASES)
def test_no_dtype_and_size_of_the_inputs_gives_nan(case, size, dtype, key):
    linear, x_shape, w_shape = CASES[case]
    x = jnp.full(x_shape, size, dtype)
    theta = jnp.full(w_shape, 1e-3, dtype)

    def loss(theta, sigma2, x):
        y = sample_linear(key, x, theta, sigma2, linear)
        assert y.dtype == dtype
        return jnp.mean(y.astype(jnp.float32))

    sigma2 = jnp.full(w_shape, 1e-6, jnp.float32)
    value, gradients = jax.value_and_grad(loss, (0, 1, 2))(theta, sigma2, x)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient.astype(jnp.float32)))
