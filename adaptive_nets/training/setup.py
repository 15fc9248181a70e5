"""From a configuration to compiled functions and data on the devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array

from adaptive_nets.data.device import Augmentation, DeviceSplit, epoch_order, normalisation
from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DataConfig, TrainConfig
from adaptive_nets.training.distributed import check_same_on_all_processes
from adaptive_nets.training.distributed import put as put_everywhere
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
    AfterStep,
    Objective,
    StepSettings,
    classification,
    init_state,
    make_train_step,
)
from adaptive_nets.training.streamed import (
    BatchMaker,
    StreamedFeed,
    make_streamed_evaluate,
    normalisation_constants,
    take_streamed_batch,
)

TrainStep = Callable[..., TrainState]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a method adds to the loop.

    Attributes:
        model: the network.
        objective: loss and training metrics; mean cross-entropy where not given.
        describe: values to log at every evaluation, from the parameters that are evaluated.
        start: (fresh parameters, fresh model state) -> those that training begins with, of the same
            shapes: weights of another network, for instance.
        assess: values to log at every evaluation, from (variables, test set).
        after: changes the model state once a step's output is known, see `make_train_step`.
    """

    model: nn.Module
    objective: Objective = dataclasses.field(default_factory=classification)
    describe: Callable[[Any], Mapping[str, float]] = lambda params: {}
    start: Callable[[Any, Any], tuple[Any, Any]] | None = None
    assess: Callable[[Any, DeviceSplit], Mapping[str, float]] = lambda variables, test: {}
    after: AfterStep | None = None


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


def _can_loop_on_device(model: nn.Module, shapes: TrainState, data: DeviceSplit) -> bool:
    """Whether a loop on the device is a good place for a step.

    XLA's CPU backend runs the gradients of a convolution inside a loop on one thread, tens of times
    slower.
    """
    if jax.default_backend() != "cpu":
        return True
    image = jax.ShapeDtypeStruct((1, *data.images.shape[1:]), jnp.float32)
    forward = jax.make_jaxpr(lambda variables, x: model.apply(variables, x, train=False))
    return "conv_general_dilated" not in str(forward(shapes.variables, image))


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


def put_on_devices(
    dataset: Dataset, config: DataConfig, mesh: Mesh
) -> tuple[DeviceSplit, DeviceSplit]:
    """Copies training and test set to every device, with the training set's statistics."""
    assert dataset.train is not None
    assert dataset.test is not None
    offset, scale = normalisation(
        dataset.train.images,
        pixel_scale=config.pixel_scale,
        centre=config.centre,
        standardise=config.standardise,
    )

    def put(split: Split) -> DeviceSplit:
        arrays: tuple[Any, ...] = (split.images, split.labels, offset, scale)
        host = DeviceSplit(*arrays, np.float32(config.pixel_scale))  # pyright: ignore
        host = dataclasses.replace(host, per_image=config.per_image)
        return put_everywhere(host, replicated(mesh))

    return put(dataset.train), put(dataset.test)


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
    image_shape: tuple[int, int, int],
    streamed: bool,
) -> Program:
    """Builds step and state for devices that need not be here.

    Args:
        task: network and objective.
        config: everything else that matters.
        mesh: the devices.
        examples: size of the training set.
        image_shape: (H, W, C) of its images.
        streamed: whether batches come from the host.

    Raises:
        UserError: sizes that do not fit the devices or the data set.
    """
    check_batch(mesh, config.data.batch_size, flag="data.batch-size")
    check_batch(mesh, config.data.eval_batch_size, flag="data.eval-batch-size")
    timing = Timing.of(config.schedule.length, batch_size=config.data.batch_size, examples=examples)
    schedule = make_schedule(config.schedule, timing, peak=config.optimiser.learning_rate)
    optimiser = make_optimiser(config.optimiser, schedule)
    settings = StepSettings(
        batch_size=config.data.batch_size,
        accumulation=config.data.accumulation,
        ema_decay=config.optimiser.ema_decay,
        augmentation=Augmentation(config.data.crop_padding, config.data.flip),
        batch_sharding=batch_sharding(mesh),
    )

    def create(rng: Array) -> TrainState:
        return init_state(
            task.model,
            optimiser,
            task.objective,
            settings,
            rng=rng,
            image_shape=image_shape,
            start=task.start,
        )

    shapes = jax.eval_shape(create, jax.ShapeDtypeStruct((2,), jnp.uint32))
    shardings = state_shardings(
        mesh,
        shapes,
        shard_from=config.mesh.shard_from,
        shard_parameters=config.mesh.shard_parameters,
    )
    return Program(
        mesh=mesh,
        timing=timing,
        schedule=schedule,
        create=create,
        train_step=make_train_step(
            task.model,
            optimiser,
            task.objective,
            settings,
            after=task.after,
            take=take_streamed_batch if streamed else None,
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
    if resident:
        train_data, test_data = put_on_devices(dataset, config.data, mesh)
        height, width, channels = train_data.images.shape[1:]
    else:
        train_data, test_data = dataset.streams["train"], dataset.streams["test"]
        height, width, channels = train_data.image_shape
    program = make_program(
        task,
        config,
        mesh=mesh,
        examples=train_data.size,
        image_shape=(height, width, channels),
        streamed=not resident,
    )
    feed, evaluate, alone = (_resident if resident else _streamed)(
        task, config, program, train_data, rng
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
    task: Task, config: TrainConfig, program: Program, data: Any, rng: np.ndarray
) -> tuple[Feed, Evaluate, Evaluate]:
    """Feed and evaluation of a set that lies on the devices."""

    def order_of(epoch: Array) -> Array:
        key = jax.random.wrap_key_data(rng)  # pyright: ignore[reportArgumentType]
        return epoch_order(jax.random.fold_in(key, SHUFFLE), epoch, data.size)

    grouped = _can_loop_on_device(task.model, program.abstract_state, data)
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
    evaluate = make_evaluate(task.model, batch_size=size, batch_sharding=sharding)
    several = jax.process_count() > 1
    return feed, evaluate, make_evaluate(task.model, batch_size=size) if several else evaluate


def _streamed(
    task: Task, config: TrainConfig, program: Program, data: Any, rng: np.ndarray
) -> tuple[Feed, Evaluate, Evaluate]:
    """Feed and evaluation of a set that is read while training."""
    if config.data.crop_padding:
        raise UserError(
            f"--data.crop-padding is {config.data.crop_padding}; expected 0, since images that are "
            "read while training are cropped when they are read"
        )
    sharding = batch_sharding(program.mesh)
    options = StreamOptions(
        config.run.input_workers, config.run.input_threads, config.run.input_prefetch
    )

    def maker(batch_size: int) -> BatchMaker:
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
        task.model,
        maker(config.data.eval_batch_size),
        batch_size=config.data.eval_batch_size,
        sharding=sharding,
        options=options,
    )
    return feed, evaluate, evaluate
