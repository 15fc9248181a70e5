"""A block's stopping time as a discrete latent variable [figurnov2018].

Here h^l is the probability of stopping after unit l given that it was reached, unlike in ACT, which
adds scores up: parameters of one do not serve the other. The same functions take sampled indicators
ξ^l in {0, 1}, relaxed ones in (0, 1) and probabilities.
"""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting.arguments import as_units
from adaptive_nets.halting.prefix_scan import exclusive_scan


def survival(indicators: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """How far each unit is reached: a^l = Π_{i<l} (1 − ξ^i), a^1 = 1.

    Of probabilities it is P(z ≥ l); of discrete indicators the mask of units that run; of relaxed
    ones the soft mask on a unit's residual.

    Args:
        indicators: float[..., L] in [0, 1]; the last is not read.

    Returns:
        float[..., L], not increasing along the last axis.

    Raises:
        UserError: `indicators` is not float[..., L].
    """
    indicators = as_units("indicators", indicators)
    return exclusive_scan(operator.mul, jnp.ones_like(indicators[..., 0]), 1.0 - indicators)


def stick_breaking(indicators: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """Weights of the units: ẑ^l = ξ^l · Π_{i<l} (1 − ξ^i); they sum to 1.

    Of probabilities it is q(z = l).

    Args:
        indicators: float[..., L] in [0, 1]. The last of L is taken as 1, whatever is passed.

    Returns:
        float[..., L].

    Raises:
        UserError: `indicators` is not float[..., L].
    """
    indicators = as_units("indicators", indicators)
    last = jnp.ones_like(indicators[..., :1])
    return survival(indicators) * jnp.concatenate([indicators[..., :-1], last], axis=-1)


def log_stick_breaking(logits: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """Logarithm of `stick_breaking` of σ(logits), without saturation.

    Of a head's outputs it is log q(z = l), in nats; of relaxed indicators' logits the log weights.

    Args:
        logits: float[..., L]; the last is not read, its unit stops with certainty.

    Returns:
        float[..., L], with gradients that do not vanish at large logits.

    Raises:
        UserError: `logits` is not float[..., L].
    """
    logits = as_units("logits", logits)
    none = jnp.zeros_like(logits[..., :1])
    reached = exclusive_scan(operator.add, none[..., 0], jax.nn.log_sigmoid(-logits))
    stops = jnp.concatenate([jax.nn.log_sigmoid(logits[..., :-1]), none], axis=-1)
    return reached + stops


def expected_units(halting_probs: Float[Array, "... L"]) -> Float[Array, "..."]:
    """Expected number of units E[z] = Σ_l Π_{i<l} (1 − h^i).

    Args:
        halting_probs: float[..., L] in [0, 1]. The last of L is taken as 1, whatever is passed.

    Returns:
        float[...], from 1 to L.

    Raises:
        UserError: `halting_probs` is not float[..., L].
    """
    return jnp.sum(survival(as_units("halting_probs", halting_probs)), axis=-1)
