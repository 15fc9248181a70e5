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
from adaptive_nets.errors import UserError
from adaptive_nets.training.config import DataConfig, TrainConfig
from adaptive_nets.training.distributed import check_same
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

TrainStep = Callable[[TrainState, DeviceSplit, Array], TrainState]


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
        train: the training set, on every device.
        test: the test set, on every device.
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
    train: DeviceSplit
    test: DeviceSplit
    abstract_state: Any
    create_state: Callable[[], TrainState]
    feed: Feed
    fresh_metrics: Callable[[Any], Any]
    evaluate: Evaluate
    evaluate_alone: Evaluate

    def learning_rate(self, step: int) -> float:
        """The learning rate that the step numbered `step` is taken with."""
        return float(jnp.asarray(self.schedule(step)))


def _can_be_grouped(model: nn.Module, shapes: TrainState, data: DeviceSplit) -> bool:
    """Whether a loop on the device is a good place for a step.

    XLA's CPU backend runs the gradients of a convolution inside a loop on one thread, tens of times
    slower.
    """
    if jax.default_backend() != "cpu":
        return True
    image = jax.ShapeDtypeStruct((1, *data.images.shape[1:]), jnp.float32)
    forward = jax.make_jaxpr(lambda variables, x: model.apply(variables, x, train=False))
    return "conv_general_dilated" not in str(forward(shapes.variables, image))


def _grouped(train_step: TrainStep, shardings: Any) -> TrainSteps:
    """Steps in a loop on the device.

    Between two dispatches the device would wait for the host, a tenth of a LeNet step. The body is
    compiled once for any number of steps, so how they are grouped does not show in the result.
    """

    def train_steps(state, data, order, count):
        return lax.fori_loop(0, count, lambda _, state: train_step(state, data, order), state)

    compiled = jax.jit(train_steps, donate_argnums=0, out_shardings=shardings)
    return lambda state, data, order, count: compiled(state, data, order, np.int32(count))


def _one_by_one(train_step: TrainStep, shardings: Any) -> TrainSteps:
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
    """Copies training and test set to every device, with the training set's statistics.

    Raises:
        UserError: the data set has no training or no test part.
    """
    if dataset.train is None or dataset.test is None:
        missing = "training" if dataset.train is None else "test"
        raise UserError(f"data set {dataset.name!r} in {dataset.location} has no {missing} part")
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


def set_up(task: Task, config: TrainConfig, dataset: Dataset, *, seed: int) -> Setup:
    """Puts data on the devices and prepares the compiled functions; nothing is trained yet.

    Args:
        task: network and objective.
        config: everything else that matters.
        dataset: training and test set in host memory.
        seed: of initialisation, order of the data, augmentation and noise.

    Raises:
        UserError: sizes that do not fit the devices or the data set.
    """
    mesh = make_mesh(config.mesh)
    check_same(dataset.fingerprint, f"copies of {dataset.name}")
    check_batch(mesh, config.data.batch_size, flag="data.batch-size")
    check_batch(mesh, config.data.eval_batch_size, flag="data.eval-batch-size")
    train_data, test_data = put_on_devices(dataset, config.data, mesh)
    timing = Timing.of(
        config.schedule.length, batch_size=config.data.batch_size, examples=train_data.size
    )
    schedule = make_schedule(config.schedule, timing, peak=config.optimiser.learning_rate)
    optimiser = make_optimiser(config.optimiser, schedule)
    settings = StepSettings(
        batch_size=config.data.batch_size,
        accumulation=config.data.accumulation,
        ema_decay=config.optimiser.ema_decay,
        augmentation=Augmentation(config.data.crop_padding, config.data.flip),
        batch_sharding=batch_sharding(mesh),
    )
    rng: Any = np.asarray(jax.random.key_data(jax.random.key(seed)))
    height, width, channels = train_data.images.shape[1:]

    def create(rng: Array) -> TrainState:
        return init_state(
            task.model,
            optimiser,
            task.objective,
            settings,
            rng=rng,
            image_shape=(height, width, channels),
            start=task.start,
        )

    def order_of(epoch: Array) -> Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(rng), SHUFFLE)
        return epoch_order(key, epoch, train_data.size)

    shapes = jax.eval_shape(create, rng)
    shardings = state_shardings(
        mesh,
        shapes,
        shard_from=config.mesh.shard_from,
        shard_parameters=config.mesh.shard_parameters,
    )
    abstract_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    evaluate = make_evaluate(
        task.model,
        batch_size=config.data.eval_batch_size,
        batch_sharding=batch_sharding(mesh),
    )
    train_step = make_train_step(task.model, optimiser, task.objective, settings, after=task.after)
    train_steps = _grouped if _can_be_grouped(task.model, shapes, train_data) else _one_by_one
    return Setup(
        mesh=mesh,
        timing=timing,
        schedule=schedule,
        train=train_data,
        test=test_data,
        abstract_state=abstract_state,
        create_state=lambda: jax.jit(create, out_shardings=shardings)(rng),
        feed=ResidentFeed(
            train_data,
            train_steps(train_step, shardings),
            jax.jit(order_of, out_shardings=replicated(mesh)),
            steps_per_epoch=timing.steps_per_epoch,
        ),
        fresh_metrics=jax.jit(zero_metrics, out_shardings=shardings.metrics),
        evaluate=evaluate,
        evaluate_alone=evaluate
        if jax.process_count() == 1
        else make_evaluate(task.model, batch_size=config.data.eval_batch_size),
    )
