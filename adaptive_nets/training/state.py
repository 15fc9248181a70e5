"""Training state: the arrays carried from step to step."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from adaptive_nets.training.metrics import Mean

HEALTHY = -1


@flax.struct.dataclass
class TrainState:
    """State of one run, a pytree of arrays that is sharded, donated and saved as a whole.

    Attributes:
        step: int32[], number of optimiser steps taken.
        rng: uint32[2], data of the run's base PRNG key; every draw folds in a purpose and the step.
        params: trainable parameters, float32.
        model_state: other collections of the network, such as batch statistics; may be empty.
        opt_state: state of the optimiser.
        ema: exponential moving average of `params`, or an empty dict.
        metrics: training metrics since the last log.
        failed_step: int32[], first step whose loss was not finite, or `HEALTHY`.
    """

    step: Int[Array, ""]
    rng: UInt32[Array, " 2"]
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any
    metrics: dict[str, Mean]
    failed_step: Int[Array, ""]

    @property
    def variables(self) -> dict[str, Any]:
        """Variables for `model.apply` in training."""
        return {"params": self.params, **self.model_state}

    @property
    def eval_variables(self) -> dict[str, Any]:
        """Variables for `model.apply` in evaluation: the moving average if there is one."""
        return {"params": self.ema or self.params, **self.model_state}

    def key(self, purpose: int) -> PRNGKeyArray:
        """Returns the key of this step for a purpose, see `step.INIT` and its like."""
        base = jax.random.wrap_key_data(self.rng)
        return jax.random.fold_in(jax.random.fold_in(base, purpose), self.step)


def zero_metrics(metrics: dict[str, Mean]) -> dict[str, Mean]:
    """Returns the metrics with all sums and counts 0."""
    return jax.tree.map(jnp.zeros_like, metrics)


@jax.jit
def is_healthy(state: TrainState) -> Bool[Array, ""]:
    """Returns whether every loss so far and every parameter is finite; checked before a save."""
    leaves = jax.tree.leaves((state.params, state.ema))
    return (state.failed_step == HEALTHY) & jnp.all(
        jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])
    )
