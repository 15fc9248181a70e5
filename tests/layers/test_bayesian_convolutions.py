"""Convolutions with Gaussian kernels in any network, against the plain network and moments."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.layers.bayesian_convolutions import MEAN, SPREAD, BayesianConvolutions
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.runtime.errors import UserError


class Small(nn.Module):
    """Two convolutions, the second strided, padded and grouped, and a dense layer."""

    use_bias: bool = True

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(Conv(4, (3, 2), padding="VALID", use_bias=self.use_bias, name="conv1")(x))
        x = Conv(
            6, (3, 3), strides=2, padding=1, feature_group_count=2, use_bias=self.use_bias,
            name="conv2",
        )(x)  # fmt: skip
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


@pytest.fixture
def images(rng) -> jax.Array:
    return jnp.asarray(rng.normal(size=(2, 7, 6, 3)), jnp.float32)


@pytest.mark.parametrize("use_bias", [True, False])
def test_without_noise_outputs_are_those_of_the_plain_network(key, images, use_bias):
    module = Small(use_bias)
    network = BayesianConvolutions(module, start=-80.0)
    variables = network.init(key, images)
    plain: Any = module.apply({"params": variables["params"][MEAN]}, images)
    np.testing.assert_array_equal(network.apply(variables, images), plain)
    trained = network.apply(variables, images, train=True, rngs={"noise": key})
    # The floor of the variance, 1e-8, leaves noise of a deviation of 1e-4.
    np.testing.assert_allclose(trained, plain, atol=5e-3)


def test_outputs_of_a_layer_have_the_moments_of_sampled_kernels(key, rng):
    class One(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool = False):
            return Conv(2, (3, 3), padding="VALID", name="conv1")(x)

    network = BayesianConvolutions(One(), start=-1.0)
    x = jnp.asarray(rng.normal(size=(1, 3, 3, 2)), jnp.float32)
    variables = network.init(key, x)
    apply = jax.jit(jax.vmap(lambda k: network.apply(variables, x, train=True, rngs={"noise": k})))
    drawn = apply(jax.random.split(key, 4000))
    sample = jax.vmap(lambda k: One().apply({"params": network.sample(k, variables["params"])}, x))
    sampled = jax.jit(sample)(jax.random.split(jax.random.key(1), 4000))
    expected = float(jnp.sum(x**2)) * np.exp(-1.0)
    for found in (drawn, sampled):
        np.testing.assert_allclose(np.var(found, axis=0), expected, rtol=0.12)
        error = 4 * np.sqrt(expected / 4000)
        np.testing.assert_allclose(np.mean(found, axis=0), network.apply(variables, x), atol=error)


def test_a_rate_bounds_the_noise_by_the_mean(key, images):
    network = BayesianConvolutions(Small(), spread="rate_logit", start=30.0, layers="conv1")
    params = network.init(key, images)["params"]
    assert set(params[SPREAD]) == {"conv1"}
    ((mean, variance),) = network.moments(params).values()
    np.testing.assert_allclose(variance, mean**2, rtol=1e-5)
    half = jax.tree.map(jnp.zeros_like, params[SPREAD])
    ((mean, variance),) = network.moments({**params, SPREAD: half}).values()
    np.testing.assert_allclose(variance, mean**2 / 2, rtol=1e-5)


def test_dense_layers_and_biases_are_not_sampled(key, images):
    network = BayesianConvolutions(Small(), start=0.0)
    params = network.init(key, images)["params"]
    drawn = network.sample(key, params)
    assert not np.array_equal(drawn["conv2"]["kernel"], params[MEAN]["conv2"]["kernel"])
    np.testing.assert_array_equal(drawn["conv2"]["bias"], params[MEAN]["conv2"]["bias"])
    np.testing.assert_array_equal(drawn["head"]["kernel"], params[MEAN]["head"]["kernel"])


def test_a_pattern_without_convolutions_is_refused(key, images):
    with pytest.raises(UserError, match=r"layers is 'fc\*'; expected a pattern of conv1, conv2"):
        BayesianConvolutions(Small(), layers="fc*").init(key, images)
    with pytest.raises(UserError, match="spread is 'sigma'"):
        BayesianConvolutions(Small(), spread="sigma")  # pyright: ignore[reportArgumentType]
