"""Adaptive computation time of a block of L units [figurnov2017, after graves2016].

Unit l adds up its halting score; the block stops at the unit N where the sum reaches 1 − ε. Applied
per image it is ACT, per position SACT: leading axes are free. Two forms of the same rule: `act`
takes all scores at once, `act_step` one unit at a time, for blocks that stop early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from adaptive_nets.halting.arguments import as_floating, as_units, check_number
from adaptive_nets.halting.prefix_scan import exclusive_scan
from adaptive_nets.runtime.errors import UserError

EPSILON = 0.01
"""The sum of scores that halts is 1 − ε: without it no block could stop after its first unit."""


class ActResult(NamedTuple):
    """What a block's halting scores come to.

    Attributes:
        weights: float[..., L], p^l: the share of each unit's state in the output; they sum to 1.
        num_units: int32[...], N: units that run, from 1 to L; constant for gradients.
        remainder: float[...], R = 1 − Σ_{l<N} h^l.
        ponder_cost: float[...], ρ = N + R; ∂ρ/∂h^l is −1 before N and 0 from there on.
    """

    weights: Float[Array, "... L"]
    num_units: Int32[Array, "..."]
    remainder: Float[Array, "..."]
    ponder_cost: Float[Array, "..."]


def act(halting_probs: Float[Array, "... L"], *, eps: float = EPSILON) -> ActResult:
    """Weights, number of units, remainder and ponder cost of halting scores.

    Args:
        halting_probs: float[..., L] in [0, 1]. The last of L is taken as 1, whatever is passed.
        eps: ε in (0, 1).

    Returns:
        An `ActResult`, in float32 or, for float64 scores, in float64.

    Raises:
        UserError: `eps` is outside (0, 1), or `halting_probs` is not float[..., L].

    Example:
        >>> act(jnp.array([0.01, 0.5, 0.6, 0.7, 0.0])).num_units
        Array(3, dtype=int32)
    """
    halting_probs = as_units("halting_probs", halting_probs)
    active = active_units(halting_probs, eps=eps)
    # Units before N are those after which another one runs.
    goes_on = jnp.concatenate([active[..., 1:], jnp.zeros_like(active[..., :1])], axis=-1)
    before = jnp.where(goes_on, halting_probs, 0.0)
    num_units = jnp.sum(active, axis=-1, dtype=jnp.int32)
    remainder = 1.0 - jnp.sum(before, axis=-1)
    at_end = jnp.where(active & ~goes_on, remainder[..., None], 0.0)
    return ActResult(
        weights=before + at_end,
        num_units=num_units,
        remainder=remainder,
        ponder_cost=num_units.astype(remainder.dtype) + remainder,
    )


def active_units(
    halting_probs: Float[Array, "... L"], *, eps: float = EPSILON
) -> Bool[Array, "... L"]:
    """Which units run: a^1 = 1 and a^l = 1 while Σ_{i<l} h^i < 1 − ε.

    Args:
        halting_probs: float[..., L] in [0, 1]; the last is not read.
        eps: ε in (0, 1).

    Returns:
        bool[..., L], true then false along the last axis.

    Raises:
        UserError: as for `act`.
    """
    check_number("eps", eps, below=1)
    halting_probs = lax.stop_gradient(as_units("halting_probs", halting_probs))
    total = jnp.zeros_like(halting_probs[..., 0])

    # Added in the order of the units, as `act_step` does: both forms round alike at the threshold.
    def step(state, score):
        total, active = state
        total = total + score
        return total, active & ~_reached(total, eps)

    return exclusive_scan(step, (total, jnp.ones_like(total, jnp.bool_)), halting_probs)[1]


class ActState(NamedTuple):
    """A block in the middle of its units.

    Attributes:
        output: float[..., *state], Σ p^l x^l so far.
        total: float[...], sum of halting scores.
        halted: bool[...], where no further unit is to run.
        num_units: int32[...], units that ran.
        remainder: float[...], 1 − Σ h^l of the units before the last; R once halted.
        ponder_cost: float[...], ρ of what ran; N + R once halted.
    """

    output: Float[Array, "..."]
    total: Float[Array, "..."]
    halted: Bool[Array, "..."]
    num_units: Int32[Array, "..."]
    remainder: Float[Array, "..."]
    ponder_cost: Float[Array, "..."]


def act_start(output: Float[Array, "..."], halting_shape: Sequence[int]) -> ActState:
    """State before the first unit.

    Args:
        output: array of the shape and dtype of the units' states x^l; its values are not read.
        halting_shape: shape of a unit's halting scores: (N,) per image, (N, H, W) per position.

    Returns:
        An `ActState` in which nothing has halted.

    Raises:
        UserError: `halting_shape` is not the beginning of the shape of `output`.
    """
    shape = tuple(halting_shape)
    if output.shape[: len(shape)] != shape:
        raise UserError(
            f"halting_shape is {shape}; expected the leading axes of states of shape {output.shape}"
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
    """Takes one unit's state and scores into account [figurnov2017, algorithm 1].

    The next unit need run only where `state.halted` is false. What is passed for halted elements is
    ignored, as long as it is finite.

    Args:
        state: from `act_start` or the step before.
        x: float[..., *state], x^l, the unit's state.
        halting_probs: float[...], h^l in [0, 1]; not read if `last`.
        last: whether this is unit L, which halts whatever is left.
        eps: ε in (0, 1).

    Returns:
        The state after the unit.

    Raises:
        UserError: `eps` is outside (0, 1), or shapes do not fit.
    """
    check_number("eps", eps, below=1)
    halting_probs = as_floating("halting_probs", halting_probs).astype(state.total.dtype)
    if halting_probs.shape != state.total.shape or x.shape != state.output.shape:
        raise UserError(
            f"halting_probs has shape {halting_probs.shape} and x {x.shape}; expected "
            f"{state.total.shape} and {state.output.shape}, as in the state"
        )
    total = state.total + halting_probs
    halted = state.halted | (jnp.ones_like(state.halted) if last else _reached(total, eps))
    just = halted & ~state.halted
    score = jnp.where(halted, 0.0, halting_probs)
    weight = jnp.where(just, state.remainder, score)
    cost = jnp.where(halted, jnp.where(just, state.remainder, 0.0), 1.0)
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
    """Output of a block, Σ_l p^l x^l.

    Args:
        weights: float[..., L], from `act` or `stick_breaking`.
        states: L arrays float[..., *state] whose leading axes are those of `weights`.

    Returns:
        float[..., *state], in the wider of both dtypes.

    Raises:
        UserError: there are not L states.
    """
    if len(states) != weights.shape[-1]:
        raise UserError(f"states has {len(states)} entries; expected {weights.shape[-1]}")
    terms = [_expand(weights[..., i], x.ndim) * x for i, x in enumerate(states)]
    return sum(terms[1:], start=terms[0])


def _reached(total: Array, eps: float) -> Array:
    return total >= jnp.asarray(1.0 - eps, total.dtype)


def _expand(weight: Array, ndim: int) -> Array:
    return jnp.expand_dims(weight, tuple(range(weight.ndim, ndim)))
