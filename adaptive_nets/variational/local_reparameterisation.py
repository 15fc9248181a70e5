"""Sampling pre-activations instead of weights: the local reparameterisation trick.

For a linear map of independent Gaussian weights the outputs of one example are Gaussian, with mean
Aθ and variance A²σ². Drawing those is exact for a dense layer, and gives each example its own noise
at the price of a second product. For a convolution the paper and its code draw noise independently
at every position, which has the right marginals but not the correlations of one shared weight
sample; so do we.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# Keeps the square root differentiable where a row of inputs is all zero.
VARIANCE_FLOOR = 1e-8

LinearMap = Callable[[Array, Array], Array]


def sample_linear(
    key: PRNGKeyArray,
    x: Float[Array, "N *inputs"],
    theta: Array,
    sigma2: Array,
    linear: LinearMap,
) -> Float[Array, "N *outputs"]:
    """Draws the outputs of a linear map whose weights are N(θ, σ²), [molchanov2017] eqs. 17 and 18.

    Args:
        key: a PRNG key.
        x: inputs, float[N, ...].
        theta: means of the weights, in the layout that `linear` takes.
        sigma2: variances of the weights, same shape as `theta`.
        linear: the map (x, weights) -> outputs, linear in each: a product or a convolution.

    Returns:
        Γ + √(Δ + 1e-8)·ε with Γ = linear(x, θ), Δ = linear(x², σ²), ε ~ N(0, 1) of the outputs'
        shape.
    """
    mean = linear(x, theta)
    variance = linear(jnp.square(x), sigma2)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    return mean + jnp.sqrt(variance + jnp.asarray(VARIANCE_FLOOR, mean.dtype)) * noise
