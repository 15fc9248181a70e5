"""PReLU with slopes of groups, and PyTorch's initialisation."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tolerances import close

from adaptive_nets.layers import PReLU, fan_in_uniform
from adaptive_nets.layers.prelu import prelu

pytestmark = pytest.mark.core


def test_each_group_of_channels_has_its_slope(rng):
    x = rng.normal(size=(2, 3, 6)).astype(np.float32)
    slopes = np.float32([0.25, -1.0, 2.0])
    expected = x.copy()
    for channel in range(6):
        part = expected[..., channel]
        part[part < 0] *= slopes[channel // 2]
    np.testing.assert_array_equal(prelu(x, jnp.asarray(slopes)), expected)


def test_one_slope_is_flax_prelu_that_starts_at_a_quarter(key):
    x = jax.random.normal(key, (3, 5))
    ours, flax = PReLU(), nn.PReLU(negative_slope_init=0.25)
    variables = ours.init(key, x)
    assert variables["params"]["negative_slope"].shape == (1,)
    np.testing.assert_array_equal(ours.apply(variables, x), flax.apply(flax.init(key, x), x))
    y = ours.apply(variables, x.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16


def test_the_slopes_gradient_is_the_sum_of_negative_inputs(key):
    x = jax.random.normal(key, (4, 6))
    gradient = jax.grad(lambda slopes: jnp.sum(prelu(x, slopes)))(jnp.full(2, 0.25))
    expected = np.minimum(np.asarray(x, np.float64), 0).sum(axis=0).reshape(2, 3).sum(axis=1)
    close(gradient, expected, terms=12, gradient=True)


def test_slopes_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="x has 5 channels; expected a multiple of 2 slopes"):
        prelu(jnp.ones((1, 5)), jnp.ones(2))


@pytest.mark.parametrize(
    ("shape", "batch_axis", "fan_in"),
    [((30, 40), (), 30), ((3, 3, 8, 20), (), 72), ((3, 3, 3, 2, 30), (), 54), ((6, 10, 30), 0, 10)],
)
def test_kernels_are_uniform_within_the_inverse_root_of_fan_in(shape, batch_axis, fan_in, key):
    axes = () if batch_axis == () else (batch_axis,)
    kernel = np.asarray(fan_in_uniform.kernel_init(batch_axis=axes)(key, shape, jnp.float32))
    bias = np.asarray(fan_in_uniform.bias_init(fan_in)(key, (1000,), jnp.float32))
    for values in (kernel, bias):
        bound = fan_in**-0.5
        assert np.max(np.abs(values)) <= bound * (1 + 1e-6)
        assert stats.kstest(values.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
