"""Dropout rates of a Gaussian posterior and their divergence from the log-uniform prior.

Sparse variational dropout [molchanov2017] gives every weight its own posterior q(w) = N(w; θ, σ²)
and the improper prior p(log|w|) = const. All that the prior sees of a weight is its dropout rate α
= σ²/θ².
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The fit of section 4.2 (eq. 14): −KL ≈ k1·sigmoid(k2 + k3·log α) − ½·log(1 + 1/α) − k1.
K1, K2, K3 = 0.63576, 1.87320, 1.48695
LOG_ALPHA_LIMIT = 8.0


def log_alpha(theta: Float[Array, "..."], log_sigma2: Float[Array, "..."]) -> Float[Array, "..."]:
    """Log dropout rate of each weight: log α = log σ² − log θ² (additive form, section 4.1).

    Args:
        theta: posterior means θ, float[...].
        log_sigma2: posterior log variances log σ², float[...], same shape.

    Returns:
        float[...]; large and finite, with a finite gradient, where θ is zero.
    """
    smallest = jnp.finfo(theta.dtype).tiny
    return log_sigma2 - 2.0 * jnp.log(jnp.maximum(jnp.abs(theta), smallest))


def noise_variance(
    theta: Float[Array, "..."],
    log_sigma2: Float[Array, "..."],
    *,
    limit: float = LOG_ALPHA_LIMIT,
) -> Float[Array, "..."]:
    """Variance of each weight's noise: exp(clip(log α))·θ², as the authors' code computes it.

    That is σ² itself while |log α| ≤ limit. Beyond it the noise follows θ²: a weight that has long
    been removed adds next to none, and its log σ² is at rest.

    Args:
        theta: posterior means θ, float[...].
        log_sigma2: posterior log variances log σ², float[...], same shape.
        limit: bound of |log α|.

    Returns:
        float[...], same shape; zero where θ is zero.
    """
    square = jnp.square(theta)
    return jnp.clip(jnp.exp(log_sigma2), math.exp(-limit) * square, math.exp(limit) * square)


def kl_log_uniform(
    log_alpha: Float[Array, "..."], *, limit: float | None = LOG_ALPHA_LIMIT
) -> Float[Array, "..."]:
    """KL divergence of each weight's posterior from the log-uniform prior, in nats.

    The constant is chosen such that the divergence vanishes as α → ∞. It is not the bound of a
    proper Bayesian model (the prior is improper); it is the regulariser that the paper trains with.

    Args:
        log_alpha: float[...].
        limit: log α is clipped to [−limit, limit] first, as in the authors' code, so that weights
            beyond it feel no pull from the prior; None leaves it as it is.

    Returns:
        float[...], elementwise; sum it for the layer's divergence.
    """
    if limit is None:
        half_log = 0.5 * jax.nn.softplus(-log_alpha)
    else:
        # Within the limit exp(−log α) cannot overflow, and half of softplus' work is guarding
        # against that.
        log_alpha = jnp.clip(log_alpha, -limit, limit)
        half_log = 0.5 * jnp.log1p(jnp.exp(-log_alpha))
    return K1 + half_log - K1 * jax.nn.sigmoid(K2 + K3 * log_alpha)
