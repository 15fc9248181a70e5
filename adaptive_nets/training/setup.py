"""Set-up of a run: data on the devices and compiled functions, from a configuration."""

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

from adaptive_nets.data.device import epoch_order, put_on_devices
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
from adaptive_nets.training.mesh import batch_sharding, eval_batch_size, make_mesh, replicated
from adaptive_nets.training.program import Program, make_program
from adaptive_nets.training.state import TrainState, zero_metrics
from adaptive_nets.training.step import SHUFFLE
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
    """Data and compiled functions of a training loop.

    Attributes:
        mesh: mesh of devices.
        timing: lengths of the run in steps.
        schedule: learning rate by step.
        train: training set, on every device or on disk.
        test: test set, on every device or on disk.
        abstract_state: shapes, dtypes and shardings of the state.
        create_state: creates the initial state with its shardings.
        feed: source of batches that advances the state.
        fresh_metrics: training metrics -> the same metrics with sums and counts 0.
        evaluate: (variables, split) -> values; a collective, called by all processes.
        evaluate_alone: (variables, split) -> values in one process, for arrays that
            `distributed.local_copy` returned.
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
        """Returns the learning rate of a step, counted from 0."""
        return float(jnp.asarray(self.schedule(step)))


def _can_loop_on_device(task: Task, shapes: TrainState, rows: RowShapes) -> bool:
    """Returns whether steps run efficiently in a loop on the device.

    XLA's CPU backend runs the gradients of convolutions inside a loop on a single thread, tens of
    times slower than outside.
    """
    if jax.default_backend() != "cpu":
        return True
    forward = jax.make_jaxpr(
        lambda variables, batch: task.model.apply(variables, task.inputs(batch), train=False)
    )
    return "conv_general_dilated" not in str(forward(shapes.variables, example_shapes(task, rows)))


def _device_loop_steps(train_step: TrainStep, shardings: Any) -> TrainSteps:
    """Compiles a loop of steps on the device.

    Dispatching single steps would leave the device idle for a tenth of a LeNet step. The trip count
    is a run-time value, so the compiled step and its results do not depend on the grouping.
    """

    def train_steps(state, data, order, count):
        return lax.fori_loop(0, count, lambda _, state: train_step(state, data, order), state)

    compiled = jax.jit(train_steps, donate_argnums=0, out_shardings=shardings)
    return lambda state, data, order, count: compiled(state, data, order, np.int32(count))


def _host_loop_steps(train_step: TrainStep, shardings: Any) -> TrainSteps:
    """Compiles a step that the host dispatches once per step."""
    compiled = jax.jit(train_step, donate_argnums=0, out_shardings=shardings)

    def train_steps(state, data, order, count):
        for _ in range(count):
            state = compiled(state, data, order)
        return state

    return train_steps


def set_up(task: Task, config: TrainConfig, dataset: Dataset, *, seed: int) -> Setup:
    """Places data on the devices and builds the functions of a training loop.

    Args:
        task: network and objective.
        config: configuration of the run.
        dataset: training and test set, in host memory or on disk.
        seed: seed of initialisation, order of the data, augmentation and noise.

    Raises:
        UserError: batch sizes do not fit the devices or the data set, a split is missing, or
            processes have different copies of the data set.
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
    """Returns feed and evaluations of a data set that resides on the devices."""

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
    own = config.data.eval_batch_size
    evaluate = make_evaluate(
        task,
        batch_size=eval_batch_size(program.mesh, own),
        batch_sharding=batch_sharding(program.mesh),
    )
    several = jax.process_count() > 1
    return feed, evaluate, make_evaluate(task, batch_size=own) if several else evaluate


def _streamed(
    task: Task, config: TrainConfig, program: Program, data: Any, rows: RowShapes, rng: np.ndarray
) -> tuple[Feed, Evaluate, Evaluate]:
    """Returns feed and evaluations of a streamed data set."""
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
        crop_area=config.data.crop_area,
    )
    size = eval_batch_size(program.mesh, config.data.eval_batch_size)
    evaluate = make_streamed_evaluate(
        task,
        maker(size),
        batch_size=size,
        sharding=sharding,
        options=options,
    )
    return feed, evaluate, evaluate
