"""Log-densities, entropy and divergences of factorised Gaussians, in nats."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

FLOOR = 1e-6
"""Default floor of every variance that a network computes."""

_LOG_2PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Factorised Gaussian distribution.

    Attributes:
        mean: float[...].
        variance: float[...], same shape, positive.
    """

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]


def floored_variance(raw: Float[Array, "..."], floor: float = FLOOR) -> Float[Array, "..."]:
    """Computes the variance softplus(raw) + floor.

    The paper's code has no floor [atanov2019]: elements that are constant over all slices drive the
    variance to 0 and the log-density to infinity.

    Args:
        raw: unconstrained outputs of a network, float[...].
        floor: least variance.
    """
    return jax.nn.softplus(raw) + floor


def log_normal(x: Float[Array, "..."], gaussian: Gaussian) -> Float[Array, "..."]:
    """Computes log N(x; μ, σ²), elementwise, nats.

    Args:
        x: float[...].
        gaussian: μ and σ², same shape.
    """
    mean, variance = gaussian
    return -0.5 * (_LOG_2PI + jnp.log(variance) + jnp.square(x - mean) / variance)


def normal_entropy(log_variance: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes the entropy ½·log(2πe·σ²) of a Gaussian, elementwise, nats.

    Args:
        log_variance: log σ², float[...].
    """
    return 0.5 * (_LOG_2PI + 1.0 + jnp.asarray(log_variance))


def kl_standard_normal(
    mean: Float[Array, "..."], log_variance: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Computes KL(N(μ, σ²) || N(0, 1)) = ½(σ² + μ² − 1 − log σ²), elementwise, nats.

    Both the divergence of the latent variables in the bound and the baseline prior "standard
    normal" of the weights [atanov2019].

    Args:
        mean: μ, float[...].
        log_variance: log σ², float[...], same shape.
    """
    mean, log_variance = jnp.asarray(mean), jnp.asarray(log_variance)
    return 0.5 * (jnp.exp(log_variance) + jnp.square(mean) - 1.0 - log_variance)


def sample_normal(key: PRNGKeyArray, gaussian: Gaussian) -> Float[Array, "..."]:
    """Samples μ + σ·ε with ε ~ N(0, 1), elementwise; differentiable in μ and σ²."""
    mean, variance = gaussian
    return mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape, mean.dtype)
