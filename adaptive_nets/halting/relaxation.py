"""Continuous halting indicators, through which gradients pass [figurnov2018]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.halting.arguments import as_floating, check_number

TEMPERATURE = 2.0 / 3.0
"""The usual λ of binary Concrete variables; the paper's own is not known."""

# Keeps the logit of the noise finite.
_NOISE_FLOOR = 1e-6


def relaxed_bernoulli(
    key: PRNGKeyArray,
    logits: Float[Array, "..."],
    temperature: float | Float[Array, ""] = TEMPERATURE,
) -> Float[Array, "..."]:
    """Sample of the binary Concrete distribution: ξ̂ = σ((logit h + logit u) / λ), u ~ U(0, 1).

    P(ξ̂ > ½) = h at every temperature; as λ → 0 samples become Bernoulli.

    Args:
        key: a PRNG key; the noise of every element is independent.
        logits: float[...], logit h, a head's output.
        temperature: λ > 0.

    Returns:
        float[...] in [0, 1], in float32 or, for float64 logits, in float64; reparameterised, with
        gradients in `logits` and `temperature`.

    Raises:
        UserError: `temperature` is not above 0, or `logits` is not floating.
    """
    return jax.nn.sigmoid(relaxed_bernoulli_logits(key, logits, temperature))


def relaxed_bernoulli_logits(
    key: PRNGKeyArray,
    logits: Float[Array, "..."],
    temperature: float | Float[Array, ""] = TEMPERATURE,
) -> Float[Array, "..."]:
    """Logit of `relaxed_bernoulli`, for `log_stick_breaking`: (logit h + logit u) / λ.

    Args:
        key: a PRNG key.
        logits: float[...], logit h.
        temperature: λ > 0.

    Returns:
        float[...], in float32 or wider.

    Raises:
        UserError: as for `relaxed_bernoulli`.
    """
    check_number("temperature", temperature)
    logits = as_floating("logits", logits)
    u = jax.random.uniform(
        key, logits.shape, logits.dtype, minval=_NOISE_FLOOR, maxval=1.0 - _NOISE_FLOOR
    )
    return (logits + jnp.log(u) - jnp.log1p(-u)) / jnp.asarray(temperature, logits.dtype)
