"""All that training carries from step to step."""

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
    """State of one run; a pytree of arrays, so it is sharded, donated and saved as one.

    Attributes:
        step: optimiser steps taken so far, int32[].
        rng: data of the run's base PRNG key; every draw folds in the step and a purpose.
        params: trainable parameters, float32.
        model_state: other collections of the network (batch statistics), possibly empty.
        opt_state: of the optimiser.
        ema: moving average of `params`, or an empty dict.
        metrics: training metrics since they were last read.
        failed_step: first step whose loss was not finite, or -1.
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
        """Variables for `model.apply` in evaluation: the moving average where there is one."""
        return {"params": self.ema or self.params, **self.model_state}

    def key(self, purpose: int) -> PRNGKeyArray:
        """The key of this step for one purpose."""
        base = jax.random.wrap_key_data(self.rng)
        return jax.random.fold_in(jax.random.fold_in(base, purpose), self.step)


def zero_metrics(metrics: dict[str, Mean]) -> dict[str, Mean]:
    """The same metrics with nothing counted."""
    return jax.tree.map(jnp.zeros_like, metrics)


@jax.jit
def is_healthy(state: TrainState) -> Bool[Array, ""]:
    """Whether no loss was bad and every parameter is a number; asked before a state is saved."""
    leaves = jax.tree.leaves((state.params, state.ema))
    return (state.failed_step == HEALTHY) & jnp.all(
        jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])
    )
