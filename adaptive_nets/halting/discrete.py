"""Discrete halting: sampled or thresholded indicators, and the unit at which they stop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num, PRNGKeyArray

from adaptive_nets.halting.arguments import as_units, check_number, with_unit_axis


def sample_indicators(
    key: PRNGKeyArray, halting_probs: Float[Array, "... L"]
) -> Bool[Array, "... L"]:
    """Samples a discrete block: ξ^l ~ Bernoulli(h^l) independently, ξ^L = 1.

    Args:
        key: PRNG key.
        halting_probs: float[..., L]. The last of the L probabilities is ignored and taken as 1.

    Returns:
        bool[..., L].

    Raises:
        UserError: `halting_probs` is not float[..., L].
    """
    halting_probs = as_units("halting_probs", halting_probs)
    return _last_stops(jax.random.bernoulli(key, halting_probs))


def threshold_indicators(
    halting_probs: Float[Array, "... L"], *, threshold: float = 0.5
) -> Bool[Array, "... L"]:
    """Thresholds halting probabilities: ξ^l = 1 where h^l > threshold, ξ^L = 1.

    At a threshold of 0.5 this is the mode of each conditional, not the mode of q(z): for
    h = (.4, .4, .4, 1) all four units run although the most probable z is 1.

    Args:
        halting_probs: float[..., L]. The last of the L probabilities is ignored and taken as 1.
        threshold: threshold in (0, 1).

    Returns:
        bool[..., L].

    Raises:
        UserError: `threshold` is outside (0, 1), or `halting_probs` is not float[..., L].
    """
    check_number("threshold", threshold, below=1)
    halting_probs = as_units("halting_probs", halting_probs)
    return _last_stops(halting_probs > jnp.asarray(threshold, halting_probs.dtype))


def stopping_unit(indicators: Num[Array, "... L"] | Bool[Array, "... L"]) -> Int32[Array, "..."]:
    """Computes the unit at which a block stops: z = min{l : ξ^l = 1}, counted from 1.

    Args:
        indicators: bool[..., L], or numbers, of which any nonzero one stops. The last of the L
            indicators is ignored; unit L always stops.

    Returns:
        int32[...], from 1 to L: the number of units that run.

    Raises:
        UserError: `indicators` has no axis of units.
    """
    stops = _last_stops(with_unit_axis("indicators", indicators).astype(jnp.bool_))
    return (jnp.argmax(stops, axis=-1) + 1).astype(jnp.int32)


def units_that_run(num_units: Int32[Array, "..."], units: int) -> Bool[Array, "... L"]:
    """Computes the mask a^l = 1[l ≤ N] over a block's L units.

    Args:
        num_units: int[...], N.
        units: L.

    Returns:
        bool[..., L].
    """
    number = jnp.asarray(num_units)[..., None]
    return jax.lax.broadcasted_iota(jnp.int32, (*number.shape[:-1], units), number.ndim - 1) < (
        jnp.broadcast_to(number, (*number.shape[:-1], units))
    )


def _last_stops(indicators: Bool[Array, "... L"]) -> Bool[Array, "... L"]:
    """Sets the indicator of unit L."""
    last = jnp.ones_like(indicators[..., :1])
    return jnp.concatenate([indicators[..., :-1], last], axis=-1)
