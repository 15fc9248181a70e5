"""Optimiser step and initial state, as pure functions without I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array

from adaptive_nets.data.device import Augment, DeviceSplit, finish_rows, take_training_batch
from adaptive_nets.models import full_output_method
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.state import HEALTHY, TrainState
from adaptive_nets.training.task import AfterStep, Batch, Objective, Task

# Purposes that are folded into random keys. The numbers are part of the results: never renumber.
INIT, AUGMENT, NOISE, SHUFFLE = range(4)

Take = Callable[..., Batch]
"""(state, *further arguments of the step) -> batch."""


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """Settings of a step besides network and optimiser.

    Attributes:
        accumulation: number of gradient accumulation parts.
        ema_decay: decay of the exponential moving average of the weights; 0 for none.
    """

    accumulation: int = 1
    ema_decay: float = 0.0


def split_key(key: Any, names: Sequence[str]) -> dict[str, Any]:
    """Splits a key into one for each random stream."""
    return dict(zip(names, jax.random.split(key, len(names)), strict=True)) if names else {}


def init_state(
    task: Task,
    objective: Objective,
    optimiser: optax.GradientTransformation,
    settings: StepSettings,
    *,
    rng: Array,
    example: Batch,
) -> TrainState:
    """Creates the initial state; call it under `jit` with output shardings.

    Args:
        task: network and initialisation.
        objective: loss and metrics; only the shapes of the metrics are used.
        optimiser: optimiser whose state is created.
        settings: settings of the step.
        rng: uint32[2], data of the run's base key.
        example: batch of one example; only its shapes are used.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(rng), INIT)
    keys = split_key(key, ("params", *task.streams))
    inputs = task.inputs(example)
    variables = dict(task.model.init(keys, inputs, train=False))
    params = variables.pop("params")
    if task.start is not None:
        params, variables = task.start(params, variables)

    def one_batch():
        # With train=True, since metrics of auxiliary classifiers exist only in training.
        output, _ = task.model.apply(
            {"params": params, **variables},
            inputs,
            train=True,
            rngs=keys,
            mutable=list(variables),
            **full_output_method(task.model),
        )
        return _with_loss(*objective(output, example, params, jnp.int32(0)))

    metrics = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one_batch)
    )
    return TrainState(
        step=jnp.int32(0),
        rng=rng,
        params=params,
        model_state=variables,
        opt_state=optimiser.init(params),
        ema=jax.tree.map(jnp.copy, params) if settings.ema_decay else {},
        metrics=metrics,
        failed_step=jnp.int32(HEALTHY),
    )


def _with_loss(loss: Array, metrics: dict[str, Mean]) -> dict[str, Mean]:
    return {"loss": Mean.of(loss), **metrics}


def make_train_step(
    task: Task,
    objective: Objective,
    optimiser: optax.GradientTransformation,
    settings: StepSettings,
    *,
    take: Take,
    after: AfterStep | None = None,
) -> Callable[..., TrainState]:
    """Builds the step (state, *arguments of `take`) -> state.

    The step makes its batch itself, so a step is a single dispatch.

    Args:
        task: network and its inputs.
        objective: loss and metrics.
        optimiser: optimiser of the parameters.
        settings: settings of the step.
        take: makes the batch of the step.
        after: updates the other collections of the network from its output, or None.
    """

    def loss_fn(params, model_state, batch, step, keys):
        output, mutated = task.model.apply(
            {"params": params, **model_state},
            task.inputs(batch),
            train=True,
            rngs=keys,
            mutable=list(model_state),
            **full_output_method(task.model),
        )
        loss, metrics = objective(output, batch, params, step)
        metrics = _with_loss(loss, metrics)
        kept = dict(mutated)
        if after is not None:
            kept = dict(after(kept, output, batch, step))
        return loss, (kept, metrics)

    gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def stream_keys(key):
        return split_key(key, task.streams)

    def full_batch_gradients(state, batch, key):
        (loss, (model_state, metrics)), grads = gradient(
            state.params, state.model_state, batch, state.step, stream_keys(key)
        )
        return loss, model_state, metrics, grads

    def accumulated_gradients(state, batch, key):
        parts = settings.accumulation

        # Part i takes examples i, i + parts, i + 2·parts …, so that no example changes its device.
        def divide(leaf):
            return jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

        def body(carry, part):
            model_state, metrics, total, grads = carry
            index, batch_part = part
            (loss, (model_state, new)), new_grads = gradient(
                state.params, model_state, batch_part, state.step,
                stream_keys(jax.random.fold_in(key, index)),
            )  # fmt: skip
            grads = jax.tree.map(lambda a, b: a + b / parts, grads, new_grads)
            return (model_state, metrics_lib.merge(metrics, new), total + loss / parts, grads), None

        zeros = jax.tree.map(jnp.zeros_like, (state.metrics, jnp.float32(0), state.params))
        carry = (state.model_state, *zeros)
        batches = jax.tree.map(divide, dict(batch))
        (model_state, metrics, loss, grads), _ = lax.scan(body, carry, (jnp.arange(parts), batches))
        return loss, model_state, metrics, grads

    compute = full_batch_gradients if settings.accumulation == 1 else accumulated_gradients

    def train_step(state: TrainState, *sources: Any) -> TrainState:
        batch = take(state, *sources)
        loss, model_state, metrics, grads = compute(state, batch, state.key(NOISE))
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if settings.ema_decay:
            ema = optax.incremental_update(params, ema, 1.0 - settings.ema_decay)
        # The host checks this flag at its next interval. Discarding the update here would cost one
        # more pass over all parameters and moments in every step.
        fails_now = (state.failed_step == HEALTHY) & ~jnp.isfinite(loss)
        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=ema,
            metrics=metrics_lib.merge(state.metrics, metrics),
            failed_step=jnp.where(fails_now, state.step, state.failed_step),
        )

    return train_step


def take_resident(
    task: Task, augmentation: Augment | None, *, batch_size: int, sharding: NamedSharding
) -> Take:
    """Builds a function (state, training set, order of the epoch) -> batch of the state's step.

    Args:
        task: task that turns rows into batches.
        augmentation: random changes to the rows, or None.
        batch_size: global batch size.
        sharding: sharding of a batch.
    """

    def take(state: TrainState, data: DeviceSplit, order: Array) -> Batch:
        rows = take_training_batch(
            data,
            order,
            state.step,
            batch_size=batch_size,
            key=state.key(AUGMENT),
            augmentation=augmentation or _unchanged,
            sharding=sharding,
        )
        return task.prepare(rows)

    return take


def take_streamed(task: Task, augmentation: Augment | None) -> Take:
    """Builds a function (state, rows of a batch) -> batch.

    Args:
        task: task that turns rows into batches.
        augmentation: random changes to the rows, or None.
    """

    def take(state: TrainState, data: DeviceSplit) -> Batch:
        key = state.key(AUGMENT)
        return task.prepare(finish_rows(data, data.arrays, key=key, augmentation=augmentation))

    return take


def _unchanged(key: Any, rows: Any) -> Any:
    return rows
