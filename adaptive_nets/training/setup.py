"""From a configuration to compiled functions and data on the devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array

from adaptive_nets.data.device import Augment, epoch_order, put_on_devices
from adaptive_nets.data.splits import Dataset, StreamedSplit
from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.batches import (
    RowShapes,
    choose_augmentation,
    example_shapes,
    row_shapes,
)
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.distributed import check_same_on_all_processes, put
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.evaluation import Evaluate, make_evaluate
from adaptive_nets.training.feed import Feed, ResidentFeed, TrainSteps
from adaptive_nets.training.mesh import (
    batch_sharding,
    check_batch,
    make_mesh,
    replicated,
    state_shardings,
)
from adaptive_nets.training.optimiser import make_optimiser, make_schedule
from adaptive_nets.training.state import TrainState, zero_metrics
from adaptive_nets.training.step import (
    SHUFFLE,
    StepSettings,
    init_state,
    make_train_step,
    take_resident,
    take_streamed,
)
from adaptive_nets.training.streamed import (
    BatchMaker,
    StreamedFeed,
    make_streamed_evaluate,
    normalisation_constants,
)
from adaptive_nets.training.task import Task

TrainStep = Callable[..., TrainState]


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything a loop needs.

    Attributes:
        mesh: the devices.
        timing: lengths in steps.
        schedule: learning rate by step.
        train: the training set, on every device or on disk.
        test: the test set, likewise.
        abstract_state: shapes, dtypes and shardings of the state.
        create_state: makes the first state where it will live.
        feed: takes steps, with the batch that each one needs.
        fresh_metrics: training metrics -> the same with nothing counted.
        evaluate: (variables, split) -> values; called by all processes at once.
        evaluate_alone: the same on what `distributed.local_copy` makes of them.
    """

    mesh: Mesh
    timing: Timing
    schedule: optax.Schedule
    train: Any
    test: Any
    abstract_state: Any
    create_state: Callable[[], TrainState]
    feed: Feed
    fresh_metrics: Callable[[Any], Any]
    evaluate: Evaluate
    evaluate_alone: Evaluate

    def learning_rate(self, step: int) -> float:
        """The learning rate that the step numbered `step` is taken with."""
        return float(jnp.asarray(self.schedule(step)))


def _can_loop_on_device(task: Task, shapes: TrainState, rows: RowShapes) -> bool:
    """Whether a loop on the device is a good place for a step.

    XLA's CPU backend runs the gradients of a convolution inside a loop on one thread, tens of times
    slower.
    """
    if jax.default_backend() != "cpu":
        return True
    forward = jax.make_jaxpr(
        lambda variables, batch: task.model.apply(variables, task.inputs(batch), train=False)
    )
    return "conv_general_dilated" not in str(forward(shapes.variables, example_shapes(task, rows)))


def _device_loop_steps(train_step: TrainStep, shardings: Any) -> TrainSteps:
    """Steps in a loop on the device.

    Between two dispatches the device would wait for the host, a tenth of a LeNet step. The body is
    compiled once for any number of steps, so how they are grouped does not show in the result.
    """

    def train_steps(state, data, order, count):
        return lax.fori_loop(0, count, lambda _, state: train_step(state, data, order), state)

    compiled = jax.jit(train_steps, donate_argnums=0, out_shardings=shardings)
    return lambda state, data, order, count: compiled(state, data, order, np.int32(count))


def _host_loop_steps(train_step: TrainStep, shardings: Any) -> TrainSteps:
    """Steps dispatched from the host."""
    compiled = jax.jit(train_step, donate_argnums=0, out_shardings=shardings)

    def train_steps(state, data, order, count):
        for _ in range(count):
            state = compiled(state, data, order)
        return state

    return train_steps


@dataclasses.dataclass(frozen=True)
class Program:
    """What a configuration comes to on given devices, before there is any data or state.

    Attributes:
        mesh: the devices.
        timing: lengths in steps.
        schedule: learning rate by step.
        create: seed's key data -> first state.
        train_step: (state, training set, order) -> state, or (state, batch) -> state if the set is
            read while training; not compiled.
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
    """Builds step and state for devices that need not be here.

    Args:
        task: network and objective.
        config: everything else that matters.
        mesh: the devices.
        examples: size of the training set.
        rows: of the training set, as it is stored.
        streamed: whether batches come from the host.
        augmentation: random changes to training rows, on the devices.

    Raises:
        UserError: sizes that do not fit the devices or the data set.
    """
    check_batch(mesh, config.data.batch_size, flag="data.batch-size")
    check_batch(mesh, config.data.eval_batch_size, flag="data.eval-batch-size")
    timing = Timing.of(config.schedule.length, batch_size=config.data.batch_size, examples=examples)
    schedule = make_schedule(config.schedule, timing, peak=config.optimiser.learning_rate)
    optimiser = make_optimiser(config.optimiser, schedule)
    settings = StepSettings(
        accumulation=config.data.accumulation,
        ema_decay=config.optimiser.ema_decay,
        alone=mesh.size == 1,
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


def set_up(task: Task, config: TrainConfig, dataset: Dataset, *, seed: int) -> Setup:
    """Puts data on the devices and prepares the compiled functions; nothing is trained yet.

    Args:
        task: network and objective.
        config: everything else that matters.
        dataset: training and test set, in host memory or on disk.
        seed: of initialisation, order of the data, augmentation and noise.

    Raises:
        UserError: sizes that do not fit the devices or the data set.
    """
    mesh = make_mesh(config.mesh)
    check_same_on_all_processes(dataset.fingerprint, f"copies of {dataset.name}")
    for part, name in (("train", "training"), ("test", "test")):
        if not dataset.count(part):
            raise UserError(f"data set {dataset.name!r} in {dataset.location} has no {name} part")
    rng = np.asarray(jax.random.key_data(jax.random.key(seed)))
    resident = not dataset.streams
    train_split: Any = dataset.train if resident else dataset.streams["train"]
    rows = row_shapes(train_split)
    augmentation = choose_augmentation(
        task, config.data, rows, read_augmented=isinstance(train_split, StreamedSplit)
    )
    if resident:
        train_data, test_data = put_on_devices(
            dataset, config.data, lambda split: put(split, replicated(mesh))
        )
    else:
        train_data, test_data = train_split, dataset.streams["test"]
    program = make_program(
        task,
        config,
        mesh=mesh,
        examples=train_data.size,
        rows=rows,
        streamed=not resident,
        augmentation=augmentation,
    )
    feed, evaluate, alone = (_resident if resident else _streamed)(
        task, config, program, train_data, rows, rng
    )
    shardings = program.shardings
    return Setup(
        mesh=mesh,
        timing=program.timing,
        schedule=program.schedule,
        train=train_data,
        test=test_data,
        abstract_state=program.abstract_state,
        create_state=lambda: jax.jit(program.create, out_shardings=shardings)(rng),
        feed=feed,
        fresh_metrics=jax.jit(zero_metrics, out_shardings=shardings.metrics),
        evaluate=evaluate,
        evaluate_alone=alone,
    )


def _resident(
    task: Task, config: TrainConfig, program: Program, data: Any, rows: RowShapes, rng: np.ndarray
) -> tuple[Feed, Evaluate, Evaluate]:
    """Feed and evaluation of a set that lies on the devices."""

    def order_of(epoch: Array) -> Array:
        key = jax.random.wrap_key_data(rng)  # pyright: ignore[reportArgumentType]
        return epoch_order(jax.random.fold_in(key, SHUFFLE), epoch, data.size)

    grouped = _can_loop_on_device(task, program.abstract_state, rows)
    feed = ResidentFeed(
        data,
        (_device_loop_steps if grouped else _host_loop_steps)(
            program.train_step, program.shardings
        ),
        jax.jit(order_of, out_shardings=replicated(program.mesh)),
        steps_per_epoch=program.timing.steps_per_epoch,
    )
    size = config.data.eval_batch_size
    sharding = batch_sharding(program.mesh)
    evaluate = make_evaluate(task, batch_size=size, batch_sharding=sharding)
    several = jax.process_count() > 1
    return feed, evaluate, make_evaluate(task, batch_size=size) if several else evaluate


def _streamed(
    task: Task, config: TrainConfig, program: Program, data: Any, rows: RowShapes, rng: np.ndarray
) -> tuple[Feed, Evaluate, Evaluate]:
    """Feed and evaluation of a set that is read while training."""
    sharding = batch_sharding(program.mesh)
    options = StreamOptions(
        config.run.input_workers, config.run.input_threads, config.run.input_prefetch
    )

    def maker(batch_size: int) -> BatchMaker:
        constants: tuple[Any, Any, Any] = (None, None, None)
        if "image" in rows:
            constants = normalisation_constants(data, config.data)
        return BatchMaker(batch_size, sharding, constants, per_image=config.data.per_image)

    feed = StreamedFeed(
        data,
        jax.jit(program.train_step, donate_argnums=0, out_shardings=program.shardings),
        maker(config.data.batch_size),
        batch_size=config.data.batch_size,
        total_steps=program.timing.total_steps,
        options=options,
        seed=int(rng[-1]),
        flip=config.data.flip,
    )
    evaluate = make_streamed_evaluate(
        task,
        maker(config.data.eval_batch_size),
        batch_size=config.data.eval_batch_size,
        sharding=sharding,
        options=options,
    )
    return feed, evaluate, evaluate
