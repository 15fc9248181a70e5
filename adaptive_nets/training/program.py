"""Program of a run: step, schedule and shapes of the state on a mesh, from a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from adaptive_nets.data.device import Augment
from adaptive_nets.training.batches import RowShapes, example_shapes
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.mesh import batch_sharding, check_batch, state_shardings
from adaptive_nets.training.optimiser import make_optimiser, make_schedule
from adaptive_nets.training.state import TrainState
from adaptive_nets.training.step import (
    StepSettings,
    init_state,
    make_train_step,
    take_resident,
    take_streamed,
)
from adaptive_nets.training.task import Task


@dataclasses.dataclass(frozen=True)
class Program:
    """Functions and shapes of a configuration on a mesh, before any data or state exists.

    Attributes:
        mesh: mesh of devices.
        timing: lengths of the run in steps.
        schedule: learning rate by step.
        create: key data of the seed -> initial state.
        train_step: (state, training set, order of the epoch) -> state for a resident training set,
            (state, batch) -> state for a streamed one; not compiled.
        abstract_state: shapes, dtypes and shardings of the state.
    """

    mesh: Mesh
    timing: Timing
    schedule: optax.Schedule
    create: Callable[[Any], TrainState]
    train_step: Callable[..., TrainState]
    abstract_state: Any

    @property
    def shardings(self) -> Any:
        """Shardings of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)


def make_program(
    task: Task,
    config: TrainConfig,
    *,
    mesh: Mesh,
    examples: int,
    rows: RowShapes,
    streamed: bool,
    augmentation: Augment | None = None,
) -> Program:
    """Builds the step and the shapes of the state; the mesh may be of abstract devices.

    Args:
        task: network and objective.
        config: configuration of the run.
        mesh: mesh of devices.
        examples: size of the training set.
        rows: row shapes of the training set.
        streamed: whether batches come from the host.
        augmentation: on-device augmentation of training rows, or None.

    Raises:
        UserError: batch sizes do not fit the devices or the data set.
    """
    check_batch(mesh, config.data.batch_size, accumulation=config.data.accumulation)
    timing = Timing.of(config.schedule.length, batch_size=config.data.batch_size, examples=examples)
    schedule = make_schedule(config.schedule, timing, peak=config.optimiser.learning_rate)
    optimiser = make_optimiser(config.optimiser, schedule, task.rate_factors)
    settings = StepSettings(
        accumulation=config.data.accumulation,
        ema_decay=config.optimiser.ema_decay,
    )
    objective = task.objective(timing)
    example = example_shapes(task, rows)

    def create(rng: Array) -> TrainState:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), example)
        return init_state(task, objective, optimiser, settings, rng=rng, example=zeros)

    shapes = jax.eval_shape(create, jax.ShapeDtypeStruct((2,), jnp.uint32))
    shardings = state_shardings(
        mesh,
        shapes,
        shard_from=config.mesh.shard_from,
        shard_parameters=config.mesh.shard_parameters,
    )
    take = (
        take_streamed(task, augmentation)
        if streamed
        else take_resident(
            task, augmentation, batch_size=config.data.batch_size, sharding=batch_sharding(mesh)
        )
    )
    return Program(
        mesh=mesh,
        timing=timing,
        schedule=schedule,
        create=create,
        train_step=make_train_step(
            task,
            objective,
            optimiser,
            settings,
            take=take,
            after=task.after(timing) if task.after else None,
        ),
        abstract_state=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        ),
    )
