"""Blocks of halting units in the dense form, for training and every mode.

Every unit runs at every position, and a mask on its residual gives the values of a network that
skips. `adaptive_nets.models.adaptive.skipping_block` runs the same parameters and does skip.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.halting import (
    TEMPERATURE,
    act,
    act_start,
    act_step,
    expected_next_units,
    expected_units,
    group_average,
    log_prob_of_units,
    log_stick_breaking,
    relaxed_bernoulli_logits,
    sample_indicators,
    spread_groups,
    stopping_unit,
    threshold_indicators,
)
from adaptive_nets.halting.adaptive_computation_time import EPSILON
from adaptive_nets.halting.arguments import check_number, check_positive_integer
from adaptive_nets.models.output import BlockTrace
from adaptive_nets.runtime.errors import UserError, did_you_mean

Rule = Literal["act", "sact", "pact"]
Mode = Literal["relaxed", "discrete", "thresholded"]
Unit = Callable[[Array, Array | None], Array]
"""(x, mask or None) -> the unit's output."""
Head = Callable[[Array], Array]
"""State x -> logits, float32[N] or float32[N, H, W]."""
NextKey = Callable[[], PRNGKeyArray]


@dataclasses.dataclass(frozen=True)
class Halting:
    """Halting rule of a network's blocks, with its options.

    Attributes:
        rule: "act" sums scores per image, "sact" per position [figurnov2017]; "pact" reads them as
            probabilities of stopping [figurnov2018].
        head_norm: whether heads normalise their inputs, as in the authors' code; the paper's
            formula does not.
        eps: ε of "act" and "sact", in (0, 1).
        groups: for "pact", the largest number of groups of positions per axis that share one
            decision; None for a decision at each position.
        temperature: for "pact", default λ of relaxed indicators.
    """

    rule: Rule
    head_norm: bool = True
    eps: float = EPSILON
    groups: int | None = None
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise UserError(f"rule is {self.rule!r}; {did_you_mean(self.rule, get_args(Rule))}")
        check_number("eps", self.eps, below=1)
        check_number("temperature", self.temperature)
        if self.groups is not None:
            check_positive_integer("groups", self.groups)

    def mode(self, mode: Mode | None, *, train: bool) -> Mode | None:
        """Resolves the mode of a call.

        Args:
            mode: mode of the call; if None, a probabilistic network is relaxed in training and
                thresholded otherwise.
            train: whether the call is a training step.

        Returns:
            The mode; None for a network that sums scores.

        Raises:
            UserError: the mode is unknown, or the rule has no modes.
        """
        if self.rule != "pact":
            if mode is not None:
                raise UserError(
                    f"mode is {mode!r}; expected None, since the rule {self.rule!r} has no modes"
                )
            return None
        if mode is None:
            return "relaxed" if train else "thresholded"
        if mode not in get_args(Mode):
            raise UserError(f"mode is {mode!r}; {did_you_mean(mode, get_args(Mode))}")
        return mode


def run_act_block(
    units: Sequence[Unit],
    heads: Sequence[Head],
    x: Float[Array, "N H W C"],
    *,
    per_image: bool,
    eps: float,
) -> tuple[Float[Array, "N H2 W2 O"], BlockTrace]:
    """Runs a block of ACT or SACT [figurnov2017, algorithm 2].

    Args:
        units: L units; the first may change the shape.
        heads: L − 1 heads.
        x: float[N, H, W, C].
        per_image: whether heads return [N], for ACT, or [N, H, W], for SACT.
        eps: ε.

    Returns:
        Output Σ_l p^l x^l in x's dtype, and the trace of the block.
    """
    x = units[0](x, None)
    shape = x.shape[: 1 if per_image else 3]
    state = act_start(x, shape)
    all_logits, all_probs = [], []
    for i, unit in enumerate(units):
        if i:
            x = unit(x, ~state.halted)
        last = i == len(units) - 1
        logits = jnp.zeros(shape) if last else heads[i](x)
        probs = jnp.ones(shape) if last else jax.nn.sigmoid(logits)
        state = act_step(state, x, probs, last=last, eps=eps)
        all_logits.append(logits)
        all_probs.append(probs)
    halting_probs = jnp.stack(all_probs, axis=-1)
    result = act(halting_probs, eps=eps)
    trace = BlockTrace(
        ponder_cost=result.ponder_cost,
        num_units=result.num_units,
        halting_logits=jnp.stack(all_logits, axis=-1),
        halting_probs=halting_probs,
        weights=result.weights,
        log_prob=jnp.zeros(x.shape[:1]),
        map_size=(x.shape[1], x.shape[2]),
    )
    return state.output.astype(x.dtype), trace


def run_probabilistic_block(
    units: Sequence[Unit],
    heads: Sequence[Head],
    x: Float[Array, "N H W C"],
    *,
    mode: Mode,
    groups: int | None,
    temperature: float | Float[Array, ""],
    next_key: NextKey,
) -> tuple[Float[Array, "N H2 W2 O"], BlockTrace]:
    """Runs a probabilistic block in one of its three modes [figurnov2018].

    Discrete and thresholded blocks copy the state of halted positions, so their last state is the
    output. Relaxed blocks output the weighted sum of all states. Their soft mask Π_{i<l} (1 − ξ̂^i)
    on a unit's residual makes them equal to discrete blocks if probabilities are 0 or 1; the paper
    does not state its mask.

    Args:
        units: L units; the first may change the shape.
        heads: L − 1 heads; they see the mean over each group of positions.
        x: float[N, H, W, C].
        mode: "relaxed", "discrete" or "thresholded".
        groups: largest number of groups per axis; None for every position.
        temperature: λ.
        next_key: returns a new PRNG key in each call; not called if thresholded.

    Returns:
        Output in x's dtype, and the trace of the block. After a decision has halted, its later
        probabilities are computed from copied states.
    """
    x = units[0](x, None)
    size = (x.shape[1], x.shape[2])
    groups = max(size) if groups is None else groups
    output = jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))
    log_reached, running = None, None
    all_logits, relaxed, indicators = [], [], []
    for i, unit in enumerate(units):
        if mode == "relaxed" and log_reached is not None:
            x = unit(x, spread_groups(jnp.exp(log_reached), size))
        elif running is not None:
            x = unit(x, spread_groups(running, size))
        last = i == len(units) - 1
        logits = (
            jnp.zeros(group_average(x[..., :1], groups).shape[:3])
            if last
            else heads[i](group_average(x, groups))
        )
        all_logits.append(logits)
        if mode == "relaxed":
            noisy = logits if last else relaxed_bernoulli_logits(next_key(), logits, temperature)
            relaxed.append(noisy)
            log_reached = jnp.zeros_like(logits) if log_reached is None else log_reached
            weight = jnp.exp(log_reached + (0.0 if last else jax.nn.log_sigmoid(noisy)))
            output = output + spread_groups(weight, size)[..., None] * x
            log_reached = log_reached + jax.nn.log_sigmoid(-noisy)
        else:
            probs = jax.nn.sigmoid(logits)[..., None]
            pair = jnp.concatenate([probs, jnp.ones_like(probs)], axis=-1)
            stops = (
                sample_indicators(next_key(), pair)
                if mode == "discrete" and not last
                else threshold_indicators(pair)
            )[..., 0]
            indicators.append(stops)
            running = ~stops if running is None else running & ~stops
    logits = jnp.stack(all_logits, axis=-1)
    last = jnp.ones_like(logits[..., :1])
    halting_probs = jnp.concatenate([jax.nn.sigmoid(logits[..., :-1]), last], axis=-1)
    log_prob = jnp.zeros(x.shape[:1])
    ponder_cost = expected_units(halting_probs)
    if mode == "relaxed":
        num_units = jnp.full(logits.shape[:-1], len(units), jnp.int32)
        weights = jnp.exp(log_stick_breaking(jnp.stack(relaxed, axis=-1)))
        x = output.astype(x.dtype)
    else:
        num_units = stopping_unit(jnp.stack(indicators, axis=-1))
        weights = jax.nn.one_hot(num_units - 1, len(units))
        if mode == "discrete":
            log_prob = log_prob_of_units(logits, num_units)
            ponder_cost = 1.0 + jnp.sum(expected_next_units(halting_probs, num_units), axis=-1)
    trace = BlockTrace(
        ponder_cost=ponder_cost,
        num_units=num_units,
        halting_logits=logits,
        halting_probs=halting_probs,
        weights=weights,
        log_prob=log_prob,
        map_size=size,
    )
    return x, trace
