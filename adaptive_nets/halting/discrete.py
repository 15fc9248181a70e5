"""Halting by yes or no: sampled or thresholded indicators, and the unit they stop at."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num, PRNGKeyArray

from adaptive_nets.halting.arguments import as_units, check_number
from adaptive_nets.runtime.errors import UserError


def sample_indicators(
    key: PRNGKeyArray, halting_probs: Float[Array, "... L"]
) -> Bool[Array, "... L"]:
    """Discrete block: ξ^l ~ Bernoulli(h^l), independently, ξ^L = 1.

    Args:
        key: a PRNG key.
        halting_probs: float[..., L]. The last of L is taken as 1, whatever is passed.

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
    """Thresholded block: ξ^l = 1 where h^l > 0.5, ξ^L = 1.

    That is the mode of each conditional, not the mode of q(z): with h = (.4, .4, .4, 1) all four
    units run although the most probable z is 1.

    Args:
        halting_probs: float[..., L]. The last of L is taken as 1, whatever is passed.
        threshold: in (0, 1).

    Returns:
        bool[..., L].

    Raises:
        UserError: an argument does not fit.
    """
    check_number("threshold", threshold, below=1)
    halting_probs = as_units("halting_probs", halting_probs)
    return _last_stops(halting_probs > jnp.asarray(threshold, halting_probs.dtype))


def stopping_unit(indicators: Num[Array, "... L"] | Bool[Array, "... L"]) -> Int32[Array, "..."]:
    """Unit at which a block stops: z = min{l : ξ^l = 1}, counted from 1.

    Args:
        indicators: bool[..., L], or numbers of which those not zero stop. The last of L stops,
            whatever is passed.

    Returns:
        int32[...], from 1 to L: the number of units that run.

    Raises:
        UserError: `indicators` has no axis of units.
    """
    indicators = jnp.asarray(indicators)
    if indicators.ndim < 1 or indicators.shape[-1] < 1:
        raise UserError(
            f"indicators has shape {indicators.shape}; expected [..., L] with L units, L >= 1"
        )
    stops = _last_stops(indicators.astype(jnp.bool_))
    return (jnp.argmax(stops, axis=-1) + 1).astype(jnp.int32)


def units_that_run(num_units: Int32[Array, "..."], units: int) -> Bool[Array, "... L"]:
    """Mask a^l = 1[l ≤ N] of a block's L units.

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
    last = jnp.ones_like(indicators[..., :1])
    return jnp.concatenate([indicators[..., :-1], last], axis=-1)
