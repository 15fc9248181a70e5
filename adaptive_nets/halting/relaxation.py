"""Relaxed (binary Concrete) halting indicators, differentiable in the logits [figurnov2018]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.halting.arguments import as_floating, check_number

TEMPERATURE = 2.0 / 3.0
"""Common default of λ for binary Concrete variables; the paper does not state its value."""

# Bounds the uniform noise away from 0 and 1, so that its logit is finite.
_NOISE_FLOOR = 1e-6


def relaxed_bernoulli(
    key: PRNGKeyArray,
    logits: Float[Array, "..."],
    temperature: float | Float[Array, ""] = TEMPERATURE,
) -> Float[Array, "..."]:
    """Samples the binary Concrete distribution: ξ̂ = σ((logit h + logit u) / λ), u ~ U(0, 1).

    P(ξ̂ > ½) = h at every temperature; samples converge to Bernoulli as λ → 0.

    Args:
        key: PRNG key; noise is independent per element.
        logits: float[...], logit h, output of a halting head.
        temperature: λ > 0.

    Returns:
        float[...] in [0, 1], in float32, or in float64 for float64 logits. Reparameterised:
        differentiable in `logits` and `temperature`.

    Raises:
        UserError: `temperature` is not above 0, or `logits` is not floating-point.
    """
    return jax.nn.sigmoid(relaxed_bernoulli_logits(key, logits, temperature))


def relaxed_bernoulli_logits(
    key: PRNGKeyArray,
    logits: Float[Array, "..."],
    temperature: float | Float[Array, ""] = TEMPERATURE,
) -> Float[Array, "..."]:
    """Samples the logit of `relaxed_bernoulli`, (logit h + logit u) / λ, for `log_stick_breaking`.

    Args:
        key: PRNG key.
        logits: float[...], logit h.
        temperature: λ > 0.

    Returns:
        float[...], in float32 or wider.

    Raises:
        UserError: `temperature` is not above 0, or `logits` is not floating-point.
    """
    check_number("temperature", temperature)
    logits = as_floating("logits", logits)
    u = jax.random.uniform(
        key, logits.shape, logits.dtype, minval=_NOISE_FLOOR, maxval=1.0 - _NOISE_FLOOR
    )
    return (logits + jnp.log(u) - jnp.log1p(-u)) / jnp.asarray(temperature, logits.dtype)
