"""Local reparameterisation trick: samples pre-activations instead of weights.

If the weights of a linear map are independent Gaussians, the outputs of one example are Gaussian
with mean Aθ and variance A²σ². Sampling them is exact for a dense layer and gives each example
independent noise for the cost of a second product. For a convolution the noise is drawn
independently at every position, as in the paper and its code: the marginals are exact, the
correlations between positions that share weights are ignored.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# Keeps the gradient of the square root finite if all inputs of an output are zero.
VARIANCE_FLOOR = 1e-8

LinearMap = Callable[[Array, Array], Array]


def sample_linear(
    key: PRNGKeyArray,
    x: Float[Array, "N *inputs"],
    theta: Array,
    sigma2: Array,
    linear: LinearMap,
) -> Float[Array, "N *outputs"]:
    """Samples outputs of a linear map with weights N(θ, σ²), [molchanov2017] eqs. 17 and 18.

    Args:
        key: PRNG key.
        x: inputs, float[N, ...].
        theta: means of the weights, in the layout that `linear` takes.
        sigma2: variances of the weights, same shape as `theta`; a wider dtype is kept.
        linear: map (x, weights) -> outputs, linear in both, such as a product or a convolution.

    Returns:
        Γ + √(Δ + 1e-8)·ε with Γ = linear(x, θ), Δ = linear(x², σ²) and ε ~ N(0, 1) independent per
        output, in the dtype of Γ. Δ and its root are computed in float32 at least: in float16 the
        floor would round to zero, and squares of inputs above 256 would be infinite.
    """
    mean = linear(x, theta)
    wide = jnp.promote_types(mean.dtype, jnp.float32)
    variance = linear(jnp.square(x.astype(wide)), sigma2.astype(wide))
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    deviation = jnp.sqrt(variance + jnp.asarray(VARIANCE_FLOOR, wide))
    return mean + (deviation * noise.astype(wide)).astype(mean.dtype)
