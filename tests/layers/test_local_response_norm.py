"""Local response normalisation against loops over channels in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.layers import local_response_norm
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def brute_force(x, *, size, alpha, beta, k, divide_by_size):
    result = np.zeros_like(x)
    channels = x.shape[-1]
    for i in range(channels):
        first = max(0, i - size // 2)
        last = min(channels - 1, i + (size - 1) // 2)
        energy = sum(x[..., j] ** 2 for j in range(first, last + 1))
        scale = alpha / size if divide_by_size else alpha
        result[..., i] = x[..., i] / (k + scale * energy) ** beta
    return result


@pytest.mark.parametrize("divide_by_size", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_equals_a_loop_over_channels(rng, channels, size, divide_by_size):
    options = {"size": size, "alpha": 0.3, "beta": 0.75, "k": 2.0, "divide_by_size": divide_by_size}
    x = rng.normal(size=(2, 3, 2, channels)) * 3
    actual = local_response_norm(jnp.asarray(x, jnp.float32), **options)
    close(actual, brute_force(x, **options), terms=size)


def test_the_default_is_that_of_caffe_networks():
    x = np.array([[300.0, -200.0, 100.0, 50.0, 400.0, -100.0, 250.0]])
    # Squares: 9, 4, 1, 1/4, 16, 1, 6 1/4 times 10,000.
    energy = np.array([14, 14.25, 30.25, 22.25, 24.5, 23.5, 23.25]) * 1e4
    expected = x / (1 + 1e-4 / 5 * energy) ** 0.75
    close(local_response_norm(jnp.asarray(x, jnp.float32)), expected, terms=5)


def test_one_weight_of_five_is_the_other_convention(rng):
    x = jnp.asarray(rng.normal(size=(4, 11)), jnp.float32)
    printed = local_response_norm(x, alpha=0.02, divide_by_size=False)
    close(printed, local_response_norm(x, alpha=0.1), terms=5)


def test_gradient_against_differences(rng):
    x = rng.normal(size=(1, 6))
    direction = rng.normal(size=(1, 6))
    options = {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 2.0, "divide_by_size": True}
    step = 1e-5
    up, down = (brute_force(x + s * direction, **options) for s in (step, -step))
    _, derivative = jax.jvp(
        lambda x: local_response_norm(x, **options),
        (jnp.asarray(x, jnp.float32),),
        (jnp.asarray(direction, jnp.float32),),
    )
    close(derivative, (up - down) / (2 * step), terms=5, gradient=True)


def test_low_precision_is_computed_in_float32():
    x = jnp.full((1, 64), 16.0, jnp.bfloat16)
    normed = local_response_norm(x, size=64, alpha=1.0, beta=1.0, k=0.0, divide_by_size=True)
    assert normed.dtype == jnp.bfloat16
    # The channel with a full window: 16 / 16**2.
    np.testing.assert_array_equal(np.asarray(normed[0, 32], np.float32), 1 / 16)


def test_an_empty_window_is_named():
    with pytest.raises(UserError, match="window is 0; expected at least 1 channel"):
        local_response_norm(jnp.zeros((1, 3)), size=0)
