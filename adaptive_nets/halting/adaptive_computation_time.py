"""Adaptive computation time of a block of L units [figurnov2017, after graves2016].

Each unit l adds its halting score h^l to a running sum; the block stops at the first unit N at
which the sum reaches 1 − ε. Leading axes are arbitrary: scores per image give ACT, scores per
position SACT. `act` takes all scores at once; `act_step` takes one unit at a time, for blocks that
stop early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from adaptive_nets.halting.arguments import (
    as_array,
    as_arrays,
    as_floating,
    as_units,
    check_number,
    with_unit_axis,
)
from adaptive_nets.halting.prefix_scan import exclusive_scan
from adaptive_nets.runtime.errors import UserError

EPSILON = 0.01
"""Slack ε of the halting threshold 1 − ε, so that a block can stop after its first unit."""


class ActResult(NamedTuple):
    """Halting distribution and cost of a block.

    Attributes:
        weights: float[..., L], p^l: weight of each unit's state in the output; sums to 1.
        num_units: int32[...], N: number of units that run, from 1 to L; has no gradient.
        remainder: float[...], R = 1 − Σ_{l<N} h^l.
        ponder_cost: float[...], ρ = N + R; ∂ρ/∂h^l is −1 for l < N and 0 otherwise.
    """

    weights: Float[Array, "... L"]
    num_units: Int32[Array, "..."]
    remainder: Float[Array, "..."]
    ponder_cost: Float[Array, "..."]


def act(halting_probs: Float[Array, "... L"], *, eps: float = EPSILON) -> ActResult:
    """Computes weights, number of units, remainder and ponder cost from halting scores.

    Args:
        halting_probs: float[..., L] in [0, 1]. The last of the L scores is ignored and taken as 1.
        eps: ε in (0, 1).

    Returns:
        An `ActResult` in float32, or in float64 for float64 scores.

    Raises:
        UserError: `eps` is outside (0, 1), or `halting_probs` is not float[..., L].

    Example:
        >>> act(jnp.array([0.01, 0.5, 0.6, 0.7, 0.0])).num_units
        Array(3, dtype=int32)
    """
    halting_probs = as_units("halting_probs", halting_probs)
    active = active_units(halting_probs, eps=eps)
    # Unit l precedes N if unit l + 1 runs.
    continues = jnp.concatenate([active[..., 1:], jnp.zeros_like(active[..., :1])], axis=-1)
    before = jnp.where(continues, halting_probs, 0.0)
    num_units = jnp.sum(active, axis=-1, dtype=jnp.int32)
    remainder = 1.0 - jnp.sum(before, axis=-1)
    at_end = jnp.where(active & ~continues, remainder[..., None], 0.0)
    return ActResult(
        weights=before + at_end,
        num_units=num_units,
        remainder=remainder,
        ponder_cost=num_units.astype(remainder.dtype) + remainder,
    )


def active_units(
    halting_probs: Float[Array, "... L"], *, eps: float = EPSILON
) -> Bool[Array, "... L"]:
    """Computes the mask of units that run: a^1 = 1, a^l = 1 while Σ_{i<l} h^i < 1 − ε.

    Args:
        halting_probs: float[..., L] in [0, 1]; the last score is ignored.
        eps: ε in (0, 1).

    Returns:
        bool[..., L], non-increasing along the last axis.

    Raises:
        UserError: `eps` is outside (0, 1), or `halting_probs` is not float[..., L].
    """
    check_number("eps", eps, below=1)
    halting_probs = lax.stop_gradient(as_units("halting_probs", halting_probs))
    total = jnp.zeros_like(halting_probs[..., 0])

    # Summed in unit order, as in `act_step`, so that both forms round identically at the threshold.
    def step(state, score):
        total, active = state
        total = total + score
        return total, active & ~_reached(total, eps)

    return exclusive_scan(step, (total, jnp.ones_like(total, jnp.bool_)), halting_probs)[1]


class ActState(NamedTuple):
    """State of a block between two units.

    Attributes:
        output: float[..., *state], partial sum Σ p^l x^l.
        total: float[...], sum of halting scores.
        halted: bool[...], True where no further unit runs.
        num_units: int32[...], number of units that ran.
        remainder: float[...], 1 − Σ h^l over the units before the last; R once halted.
        ponder_cost: float[...], ρ of the units that ran; N + R once halted.
    """

    output: Float[Array, "..."]
    total: Float[Array, "..."]
    halted: Bool[Array, "..."]
    num_units: Int32[Array, "..."]
    remainder: Float[Array, "..."]
    ponder_cost: Float[Array, "..."]


def act_start(output: Float[Array, "..."], halting_shape: Sequence[int]) -> ActState:
    """Returns the state before the first unit.

    Args:
        output: array with the shape and dtype of the units' states x^l; its values are ignored.
        halting_shape: shape of one unit's halting scores: (N,) per image, (N, H, W) per position.

    Returns:
        An `ActState` in which nothing has halted.

    Raises:
        UserError: `halting_shape` is not a prefix of the shape of `output`.
    """
    shape = tuple(halting_shape)
    output = as_array("output", output)
    if output.shape[: len(shape)] != shape:
        raise UserError(
            f"halting_shape is {shape}; expected the leading axes of states of shape "
            f"{output.shape}, such as {output.shape[:1]} for one score per image"
        )
    dtype = jnp.promote_types(output.dtype, jnp.float32)
    return ActState(
        output=jnp.zeros(output.shape, dtype),
        total=jnp.zeros(shape, dtype),
        halted=jnp.zeros(shape, jnp.bool_),
        num_units=jnp.zeros(shape, jnp.int32),
        remainder=jnp.ones(shape, dtype),
        ponder_cost=jnp.ones(shape, dtype),
    )


def act_step(
    state: ActState,
    x: Float[Array, "..."],
    halting_probs: Float[Array, "..."],
    *,
    last: bool = False,
    eps: float = EPSILON,
) -> ActState:
    """Accumulates the state and halting scores of one unit [figurnov2017, algorithm 1].

    The next unit needs to run only where `state.halted` is False. Inputs at halted elements are
    ignored but must be finite.

    Args:
        state: state from `act_start` or from the previous step.
        x: float[..., *state], x^l, the unit's state.
        halting_probs: float[...], h^l in [0, 1]; ignored if `last`.
        last: whether this is unit L, which halts every remaining element.
        eps: ε in (0, 1).

    Returns:
        The state after the unit.

    Raises:
        UserError: `eps` is outside (0, 1), or the shapes differ from those of `state`.
    """
    check_number("eps", eps, below=1)
    state, x = jax.tree.map(jnp.asarray, state), as_array("x", x)
    halting_probs = as_floating("halting_probs", halting_probs).astype(state.total.dtype)
    if halting_probs.shape != state.total.shape or x.shape != state.output.shape:
        raise UserError(
            f"halting_probs has shape {halting_probs.shape} and x {x.shape}; expected "
            f"{state.total.shape} and {state.output.shape}, as in the state"
        )
    total = state.total + halting_probs
    halted = state.halted | (jnp.ones_like(state.halted) if last else _reached(total, eps))
    newly_halted = halted & ~state.halted
    score = jnp.where(halted, 0.0, halting_probs)
    weight = jnp.where(newly_halted, state.remainder, score)
    cost = jnp.where(halted, jnp.where(newly_halted, state.remainder, 0.0), 1.0)
    return ActState(
        output=state.output + _expand(weight, x.ndim) * x,
        total=total,
        halted=halted,
        num_units=state.num_units + ~state.halted,
        remainder=state.remainder - score,
        ponder_cost=state.ponder_cost + cost,
    )


def combine_states(
    weights: Float[Array, "... L"], states: Sequence[Float[Array, "..."]]
) -> Float[Array, "..."]:
    """Computes the output of a block, Σ_l p^l x^l.

    Args:
        weights: float[..., L], from `act` or `stick_breaking`.
        states: L arrays float[..., *state] whose leading axes match `weights`.

    Returns:
        float[..., *state], in the promoted dtype of both.

    Raises:
        UserError: the number of states is not L.
    """
    weights = with_unit_axis("weights", weights)
    states = as_arrays("states", states)
    if len(states) != weights.shape[-1]:
        raise UserError(
            f"states has {len(states)} entries; expected {weights.shape[-1]}, one per unit in "
            "the last axis of weights"
        )
    terms = [_expand(weights[..., i], x.ndim) * x for i, x in enumerate(states)]
    return sum(terms[1:], start=terms[0])


def _reached(total: Array, eps: float) -> Array:
    """Checks whether a sum of halting scores reaches 1 − ε."""
    return total >= jnp.asarray(1.0 - eps, total.dtype)


def _expand(weight: Array, ndim: int) -> Array:
    """Appends axes of size 1 up to `ndim` axes."""
    return jnp.expand_dims(weight, tuple(range(weight.ndim, ndim)))
