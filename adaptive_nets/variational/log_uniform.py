"""Dropout rates of Gaussian posteriors and their KL divergence from the log-uniform prior.

Sparse variational dropout [molchanov2017] uses an independent posterior q(w) = N(w; θ, σ²) per
weight and the improper prior p(log|w|) = const. The KL divergence depends only on the dropout rate
α = σ²/θ².
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Approximation of section 4.2 (eq. 14): −KL ≈ k1·sigmoid(k2 + k3·log α) − ½·log(1 + 1/α) − k1.
K1, K2, K3 = 0.63576, 1.87320, 1.48695
LOG_ALPHA_LIMIT = 8.0


def log_alpha(theta: Float[Array, "..."], log_sigma2: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes the log dropout rate, log α = log σ² − log θ² (additive form, section 4.1).

    Args:
        theta: posterior means θ, float[...].
        log_sigma2: posterior log variances log σ², float[...], same shape.

    Returns:
        float[...]. If θ is zero, the value is large and both value and gradient are finite.
    """
    theta, log_sigma2 = jnp.asarray(theta), jnp.asarray(log_sigma2)
    smallest = jnp.finfo(theta.dtype).tiny
    return log_sigma2 - 2.0 * jnp.log(jnp.maximum(jnp.abs(theta), smallest))


def noise_variance(
    theta: Float[Array, "..."],
    log_sigma2: Float[Array, "..."],
    *,
    limit: float = LOG_ALPHA_LIMIT,
) -> Float[Array, "..."]:
    """Computes the noise variance exp(clip(log α))·θ², as in the authors' code.

    It equals σ² while |log α| ≤ limit. Beyond the limit it is proportional to θ²: a removed weight
    adds almost no noise, and its log σ² gets no gradient.

    Args:
        theta: posterior means θ, float[...].
        log_sigma2: posterior log variances log σ², float[...], same shape.
        limit: bound on |log α|.

    Returns:
        float[...], same shape; zero where θ is zero.
    """
    theta, log_sigma2 = jnp.asarray(theta), jnp.asarray(log_sigma2)
    square = jnp.square(theta)
    # An infinite exponential has an infinite derivative, which is NaN after clipping.
    largest = math.log(jnp.finfo(log_sigma2.dtype).max) - 1
    return jnp.clip(
        jnp.exp(jnp.minimum(log_sigma2, largest)),
        math.exp(-limit) * square,
        math.exp(limit) * square,
    )


def multiplicative_variance(
    theta: Float[Array, "..."],
    log_alpha: Float[Array, "..."],
    *,
    limit: float = LOG_ALPHA_LIMIT,
) -> Float[Array, "..."]:
    """Computes the noise variance α·θ² of the multiplicative form, w = θ(1 + √α·ε).

    The gradient with respect to θ has the noise 1 + √α·ε, so its variance grows with α; the
    additive form, in which σ² is trained, has none [molchanov2017, sec. 4.1].

    Args:
        theta: posterior means θ, float[...].
        log_alpha: log dropout rates log α, float[...], same shape.
        limit: bound to which |log α| is clipped.

    Returns:
        float[...], same shape.
    """
    rates = jnp.clip(jnp.asarray(log_alpha), -limit, limit)
    return jnp.exp(rates) * jnp.square(jnp.asarray(theta))


def kl_log_uniform(
    log_alpha: Float[Array, "..."], *, limit: float | None = LOG_ALPHA_LIMIT
) -> Float[Array, "..."]:
    """Computes the KL divergence of each posterior from the log-uniform prior, in nats.

    The additive constant makes the divergence vanish as α → ∞. The prior is improper, so this is
    the regulariser of the paper rather than the bound of a proper Bayesian model.

    Args:
        log_alpha: float[...].
        limit: bound to which |log α| is clipped first, as in the authors' code, so that the KL term
            has no gradient beyond it; None disables clipping.

    Returns:
        float[...], elementwise; sum it for the divergence of a layer.
    """
    log_alpha = jnp.asarray(log_alpha)
    if limit is None:
        half_log = 0.5 * jax.nn.softplus(-log_alpha)
    else:
        # The clipped exp(−log α) cannot overflow, so the slower, guarded softplus is not needed.
        log_alpha = jnp.clip(log_alpha, -limit, limit)
        half_log = 0.5 * jnp.log1p(jnp.exp(-log_alpha))
    return K1 + half_log - K1 * jax.nn.sigmoid(K2 + K3 * log_alpha)
