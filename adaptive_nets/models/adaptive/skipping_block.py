"""Block in the skipping form: a loop over units that computes active positions only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from adaptive_nets.halting import (
    act,
    group_average,
    group_sizes,
    log_prob_of_units,
    sample_indicators,
    shift_logits,
    spread_groups,
    threshold_indicators,
    units_that_run,
)
from adaptive_nets.models.adaptive.blocks import Halting, Mode
from adaptive_nets.models.adaptive.folded_weights import BlockWeights, HeadWeights
from adaptive_nets.models.adaptive.units import UnitForm
from adaptive_nets.models.output import BlockTrace
from kernels._common.arrays import vary_alike, vary_over, varying_axes
from kernels.masked_unit import BlockState, ExecutionPath, logit_map


class _Progress(NamedTuple):
    """State of the loop over units; V are the axes of the block's decisions.

    Attributes:
        unit: int32[], number of units that ran.
        state: state of the block.
        active: bool[N, *V], True where the next unit runs.
        total: float32[N, *V], sum of halting scores.
        left: float32[N, *V], remaining weight, 1 − Σ h.
        num_units: int32[N, *V], number of units that ran for each decision.
        logits: float32[L − 1, N, *V], halting logits; −∞ where the head did not run.
    """

    unit: Int[Array, ""]
    state: BlockState
    active: Bool[Array, "N *V"]
    total: Float[Array, "N *V"]
    left: Float[Array, "N *V"]
    num_units: Int[Array, "N *V"]
    logits: Float[Array, "M N *V"]


@dataclasses.dataclass(frozen=True)
class SkippingBlock:
    """Units 2 … L of a block and all its heads.

    For summed scores the output Σ p^l x^l is accumulated as x^1 + Σ_l (1 − Σ_{i<l} h^i) · a^l f^l.
    The weight of a residual is known before its unit runs, so only active positions are read or
    written.

    Attributes:
        halting: halting rule of the network.
        mode: "thresholded" or "discrete"; None for summed scores.
        units: form of the network's units.
        head_slope: slope of the leaky ReLU in heads; None for no ReLU.
        execution_path: execution path of `kernels.masked_unit`; None decides at run time.
    """

    halting: Halting
    mode: Mode | None
    units: UnitForm
    head_slope: float | None = None
    execution_path: ExecutionPath | None = None

    def run(
        self,
        x: Float[Array, "N H W C"],
        weights: BlockWeights | None,
        keys: Sequence[PRNGKeyArray] | None,
        halting_shift: Float[Array, "N"] | None = None,
    ) -> tuple[Float[Array, "N H W C"], BlockTrace]:
        """Runs units 2 … L and all heads.

        Args:
            x: float[N, H, W, C], output of unit 1.
            weights: folded weights of the block; None for a block of one unit.
            keys: keys of a discrete block, one per head; None otherwise.
            halting_shift: float[N], added to every halting logit; None for no shift.

        Returns:
            Output of the block, and its trace. The head of a unit that did not run is not
            evaluated: halting probabilities after `num_units` are 0, and the `ponder_cost` of a
            probabilistic block is the number of units that ran, not its expectation.
        """
        # The loop's state varies over the mesh axes of the images and of the weights.
        x, weights, keys, halting_shift = vary_alike(x, weights, keys, halting_shift)
        shape = self._decisions(x)
        count = 1 if weights is None else 1 + weights.count
        adds = self.mode is None
        start = _Progress(
            unit=jnp.int32(1),
            state=BlockState(x, x if adds else None, jnp.sum(x, (1, 2), dtype=jnp.float32)),
            active=jnp.ones(shape, jnp.bool_),
            total=jnp.zeros(shape),
            left=jnp.ones(shape),
            num_units=jnp.ones(shape, jnp.int32),
            logits=jnp.zeros((count - 1, *shape)),
        )
        start = vary_over(varying_axes(x), start)
        if weights is None:
            return x, self._trace(start, x)
        stacked = None if keys is None else jnp.stack(keys)

        def decide(progress: _Progress) -> _Progress:
            return self._decide(progress, weights.heads, stacked, halting_shift)

        def has_active_images(progress: _Progress) -> Array:
            return (progress.unit < count) & jnp.any(progress.active)

        def step(progress: _Progress) -> _Progress:
            state = self.units.run(
                _at(weights.units, progress.unit - 1),
                progress.state,
                self._broadcast_to_map(progress.active, x),
                share=self._broadcast_to_map(progress.left, x) if adds else None,
                execution_path=self.execution_path,
            )
            progress = progress._replace(
                unit=progress.unit + 1,
                state=state,
                num_units=progress.num_units + progress.active,
            )
            # Without the state among its results, which a conditional would copy.
            decided = lax.cond(
                progress.unit < count, lambda p: _decision(decide(p)), _decision, progress
            )
            return progress._replace(**decided)

        done = lax.while_loop(has_active_images, step, decide(start))
        output = done.state.x if done.state.total is None else done.state.total
        return output, self._trace(done, x)

    def _decisions(self, x: Array) -> tuple[int, ...]:
        """Returns the shape of a unit's halting decisions, (N, *V)."""
        if self.halting.rule == "act":
            return x.shape[:1]
        if self.halting.rule == "pact" and self.halting.groups is not None:
            return (x.shape[0], *group_sizes((x.shape[1], x.shape[2]), self.halting.groups))
        return x.shape[:3]

    def _broadcast_to_map(self, values: Array, x: Array) -> Array:
        if values.ndim == 1:
            return jnp.broadcast_to(values[:, None, None], x.shape[:3])
        return spread_groups(values, (x.shape[1], x.shape[2]))

    def _decide(
        self,
        progress: _Progress,
        heads: HeadWeights,
        keys: Array | None,
        halting_shift: Array | None,
    ) -> _Progress:
        """Evaluates the head after the current unit, which is not the last, and halts by it."""
        i, active = progress.unit - 1, progress.active
        logits = shift_logits(self._logits(_at(heads, i), progress), halting_shift)
        probs = jax.nn.sigmoid(logits)
        total, left = progress.total, progress.left
        if self.mode is None:
            # The summation order of `act_step`, so that both forms round equally at the threshold.
            total = total + probs
            active = active & (total < jnp.asarray(1.0 - self.halting.eps, total.dtype))
            left = jnp.where(active, left - probs, left)
        else:
            pair = jnp.stack([probs, jnp.ones_like(probs)], axis=-1)
            stops = threshold_indicators(pair) if keys is None else sample_indicators(keys[i], pair)
            active = active & ~stops[..., 0]
        logits = jnp.where(progress.active, logits, -jnp.inf)
        return progress._replace(
            active=active, total=total, left=left, logits=progress.logits.at[i].set(logits)
        )

    def _logits(self, head: HeadWeights, progress: _Progress) -> Float[Array, "N *V"]:
        """Returns the logits of a head; undefined at inactive positions."""
        x, sums = progress.state.x, progress.state.sums
        assert sums is not None
        mean = sums / (x.shape[1] * x.shape[2])
        mean = self._normalise(mean, head.mean_scale, head.mean_shift)
        overall = mean @ head.mean_weights + head.bias
        if head.weights is None:
            return overall
        groups = self.halting.groups if self.halting.rule == "pact" else None
        local = logit_map(
            x if groups is None else group_average(x, groups),
            head.weights,
            progress.active,
            before=lambda rows: self._normalise(rows.astype(jnp.float32), head.scale, head.shift),
            tap_biases=head.tap_biases,
        )
        return local + overall[:, None, None]

    def _normalise(self, x: Array, scale: Array | None, shift: Array | None) -> Array:
        if scale is None or shift is None:
            return x
        x = x * scale[None] + shift[None]
        return x if self.head_slope is None else jax.nn.leaky_relu(x, self.head_slope)

    def _trace(self, progress: _Progress, x: Array) -> BlockTrace:
        logits = jnp.moveaxis(progress.logits, 0, -1)
        count, last = logits.shape[-1] + 1, jnp.zeros((*logits.shape[:-1], 1))
        ran = units_that_run(progress.num_units, count)
        probs = jnp.where(ran, jnp.concatenate([jax.nn.sigmoid(logits), last + 1.0], -1), 0.0)
        logits = jnp.concatenate([logits, last], axis=-1)
        log_prob = jnp.zeros(x.shape[:1])
        if self.mode is None:
            result = act(probs, eps=self.halting.eps)
            cost, weights = result.ponder_cost, result.weights
        else:
            cost = progress.num_units.astype(jnp.float32)
            weights = jax.nn.one_hot(progress.num_units - 1, count)
            if self.mode == "discrete":
                log_prob = log_prob_of_units(logits, progress.num_units)
        return BlockTrace(
            ponder_cost=cost,
            num_units=progress.num_units,
            halting_logits=logits,
            halting_probs=probs,
            weights=weights,
            log_prob=log_prob,
            map_size=(x.shape[1], x.shape[2]),
        )


def _decision(progress: _Progress) -> dict[str, Array]:
    """Returns what a decision changes."""
    names = ("active", "total", "left", "logits")
    return {name: getattr(progress, name) for name in names}


def _at(trees: Any, i: Array) -> Any:
    """Returns row i of every array."""
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), trees)
