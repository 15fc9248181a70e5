"""Evidence lower bound and importance-weighted estimate of the log-density of kernel slices.

A prior of slices w is p(w) = ∫ p(w|z) p(z) dz with p(z) = N(0, I) and a Gaussian decoder p(w|z); an
encoder r(z|w) approximates the posterior of z [atanov2019].
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.variational.deep_weight_prior.arguments import check_slices
from adaptive_nets.variational.deep_weight_prior.densities import (
    Gaussian,
    kl_standard_normal,
    log_normal,
    sample_normal,
)


class SlicePrior(Protocol):
    """Latent-variable model of kernel slices; `adaptive_nets.layers.kernel_vae` has the networks.

    A prior that is a pytree of its parameters can be trained, differentiated and passed to `jit`.
    """

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of a slice."""
        ...

    @property
    def latent_size(self) -> int:
        """Number of latent variables of a slice, D."""
        ...

    def encode(self, slices: Float[Array, "N h w"]) -> Gaussian:
        """Returns r(z|w), a Gaussian over float[N, D]."""
        ...

    def decode(self, latents: Float[Array, "N D"]) -> Gaussian:
        """Returns p(w|z), a Gaussian over float[N, h, w]."""
        ...


def negative_elbo(
    key: PRNGKeyArray, slices: Float[Any, "N h w"], prior: SlicePrior, *, samples: int = 1
) -> Float[Array, " N"]:
    """Estimates KL(r(z|w) || p(z)) − E_r(z|w) log p(w|z), an upper bound on −log p(w).

    The divergence is analytic; the expectation is a mean over draws of z [atanov2019]. The value is
    differentiable in the slices and the prior.

    Args:
        key: PRNG key.
        slices: w, float[N, h, w].
        prior: latent-variable model.
        samples: number of draws of z.

    Returns:
        float[N], nats per slice.

    Raises:
        UserError: the slices are not of the prior's kernel size.
    """
    slices = check_slices(slices, prior.kernel_size)
    samples = as_integer("samples", samples)
    if not len(slices):
        return jnp.zeros(0, slices.dtype)
    posterior = prior.encode(slices)
    divergence = jnp.sum(kl_standard_normal(posterior.mean, jnp.log(posterior.variance)), axis=1)

    def log_likelihood(key: PRNGKeyArray) -> Float[Array, " N"]:
        return _log_likelihood(slices, sample_normal(key, posterior), prior)

    return divergence - jnp.mean(over_draws(log_likelihood, key, samples), axis=0)


def log_density(
    key: PRNGKeyArray, slices: Float[Any, "N h w"], prior: SlicePrior, *, samples: int
) -> Float[Array, " N"]:
    """Estimates log p(w) with importance weights, log (1/S) Σ_s p(w|z_s) p(z_s) / r(z_s|w).

    With z_s ~ r(z|w) the estimate is in expectation between the ELBO, at S = 1, and log p(w), which
    it approaches as S grows [burda2016]. Draws are processed one after the other, so the memory is
    that of one draw and of float[S, N].

    Args:
        key: PRNG key.
        slices: w, float[N, h, w].
        prior: latent-variable model.
        samples: number of draws of z, S.

    Returns:
        float[N], nats per slice.

    Raises:
        UserError: the slices are not of the prior's kernel size.
    """
    slices = check_slices(slices, prior.kernel_size)
    samples = as_integer("samples", samples)
    if not len(slices):
        return jnp.zeros(0, slices.dtype)
    posterior = prior.encode(slices)

    def log_weight(key: PRNGKeyArray) -> Float[Array, " N"]:
        latents = sample_normal(key, posterior)
        standard = Gaussian(jnp.zeros_like(latents), jnp.ones_like(latents))
        ratio = log_normal(latents, standard) - log_normal(latents, posterior)
        return _log_likelihood(slices, latents, prior) + jnp.sum(ratio, axis=1)

    weights = over_draws(log_weight, key, samples)
    return jax.nn.logsumexp(weights, axis=0) - math.log(samples)


def _log_likelihood(
    slices: Float[Array, "N h w"], latents: Float[Array, "N D"], prior: SlicePrior
) -> Float[Array, " N"]:
    return jnp.sum(log_normal(slices, prior.decode(latents)), axis=(1, 2))


def over_draws(function: Any, key: PRNGKeyArray, samples: int) -> Float[Array, "S N"]:
    """Stacks `function` over `samples` keys; a single draw needs no loop."""
    keys = jax.random.split(key, samples)
    return function(keys[0])[None] if samples == 1 else lax.map(function, keys)
