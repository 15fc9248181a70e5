"""Stopping time of a block as a discrete latent variable [figurnov2018].

h^l is the probability of stopping after unit l given that unit l is reached. ACT instead sums
scores, so parameters are not interchangeable between the two. The functions accept sampled
indicators ξ^l in {0, 1}, relaxed indicators in (0, 1) and probabilities.
"""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting.arguments import as_units
from adaptive_nets.halting.prefix_scan import exclusive_scan


def survival(indicators: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """Computes the survival function over units: a^l = Π_{i<l} (1 − ξ^i), a^1 = 1.

    For probabilities it is P(z ≥ l), for discrete indicators the mask of units that run, for
    relaxed indicators the soft mask of a unit's residual.

    Args:
        indicators: float[..., L] in [0, 1]; the last one is ignored.

    Returns:
        float[..., L], non-increasing along the last axis.

    Raises:
        UserError: `indicators` is not float[..., L].
    """
    indicators = as_units("indicators", indicators)
    return exclusive_scan(operator.mul, jnp.ones_like(indicators[..., 0]), 1.0 - indicators)


def stick_breaking(indicators: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """Computes stick-breaking weights: ẑ^l = ξ^l · Π_{i<l} (1 − ξ^i), which sum to 1.

    For probabilities they are q(z = l).

    Args:
        indicators: float[..., L] in [0, 1]. The last of the L is ignored and taken as 1.

    Returns:
        float[..., L].

    Raises:
        UserError: `indicators` is not float[..., L].
    """
    indicators = as_units("indicators", indicators)
    last = jnp.ones_like(indicators[..., :1])
    return survival(indicators) * jnp.concatenate([indicators[..., :-1], last], axis=-1)


def log_stick_breaking(logits: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """Computes log stick_breaking(σ(logits)) without saturation.

    For the outputs of halting heads it is log q(z = l), in nats; for the logits of relaxed
    indicators it is the logarithm of the weights.

    Args:
        logits: float[..., L]; the last one is ignored, since unit L always stops.

    Returns:
        float[..., L], with gradients that do not vanish at large logits.

    Raises:
        UserError: `logits` is not float[..., L].
    """
    logits = as_units("logits", logits)
    zero = jnp.zeros_like(logits[..., :1])
    log_survival = exclusive_scan(operator.add, zero[..., 0], jax.nn.log_sigmoid(-logits))
    log_stop = jnp.concatenate([jax.nn.log_sigmoid(logits[..., :-1]), zero], axis=-1)
    return log_survival + log_stop


def expected_units(halting_probs: Float[Array, "... L"]) -> Float[Array, "..."]:
    """Computes the expected number of units, E[z] = Σ_l Π_{i<l} (1 − h^i).

    Args:
        halting_probs: float[..., L] in [0, 1]. The last of the L is ignored and taken as 1.

    Returns:
        float[...], from 1 to L.

    Raises:
        UserError: `halting_probs` is not float[..., L].
    """
    return jnp.sum(survival(as_units("halting_probs", halting_probs)), axis=-1)
