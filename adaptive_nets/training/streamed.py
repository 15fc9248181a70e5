"""Training and evaluation on streamed data sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adaptive_nets.data.device import MIDDLE, DeviceSplit, finish_rows, given_normalisation
from adaptive_nets.data.splits import WEIGHT, ExampleSource, StreamedSplit
from adaptive_nets.data.streams import StreamOptions, evaluation_batches, stream
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.config import DataConfig
from adaptive_nets.training.distributed import put
from adaptive_nets.training.evaluation import Evaluate, finish
from adaptive_nets.training.state import TrainState
from adaptive_nets.training.task import Task

StreamedStep = Callable[[TrainState, DeviceSplit], TrainState]


def normalisation_constants(
    split: StreamedSplit | ExampleSource, config: DataConfig
) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Computes offset, scale and pixel scale of a `DeviceSplit` from channel statistics.

    Args:
        split: split with channel statistics, if the configuration needs them.
        config: normalisation of images.

    Raises:
        UserError: the configuration needs statistics that a streamed split does not have.
    """
    if config.centre == "pixel":
        raise UserError(
            "--data.centre is 'pixel'; expected none, channel or middle: a mean per pixel needs a "
            "data set in memory"
        )
    channels = len(getattr(split, "channel_mean", ()))
    if config.mean or config.centre == "source":
        given = given_normalisation(config, channels or len(config.mean))
        assert given is not None
        return *given, np.float32(config.pixel_scale)
    unit = 255.0 / config.pixel_scale
    mean, scale = np.zeros(1), np.ones(1)
    if config.centre == "middle":
        mean = np.full(1, MIDDLE / config.pixel_scale)
    elif config.centre == "channel":
        mean = unit * _statistic(split, "channel_mean", "--data.centre", config.centre, "none")
    if config.standardise:
        deviation = _statistic(split, "channel_deviation", "--data.standardise", True, False)
        scale = 1 / (unit * deviation)
    shape = (1, 1, max(mean.size, scale.size, channels))
    return (
        np.broadcast_to(mean, shape).astype(np.float32),
        np.broadcast_to(scale, shape).astype(np.float32),
        np.float32(config.pixel_scale),
    )


def _statistic(split: Any, name: str, flag: str, value: object, expected: object) -> np.ndarray:
    found = getattr(split, name, None)
    if found is None:
        raise UserError(
            f"{flag} is {value!r}; expected {expected!r}, since the streamed data set has no {name}"
        )
    return np.asarray(found)


class BatchMaker:
    """Assembles a global batch on all devices from the rows that each process read.

    Args:
        batch_size: global batch size.
        sharding: sharding of a batch.
        constants: offset, scale and pixel scale, see `DeviceSplit`; each None without images.
        per_image: whether to standardise each image at the end.

    Attributes:
        rows: int[M], sorted indices within a batch of the rows that this process reads.
    """

    def __init__(
        self,
        batch_size: int,
        sharding: NamedSharding,
        constants: tuple[Any, Any, Any],
        *,
        per_image: bool,
    ):
        self._per_image = per_image
        self._constants = put(constants, NamedSharding(sharding.mesh, PartitionSpec()))
        self._sharding = sharding
        self._batch_size = batch_size
        slices = sharding.addressable_devices_indices_map((batch_size,)).values()
        everything = np.arange(batch_size)
        held = [everything[index[0]] for index in slices]  # pyright: ignore[reportOptionalSubscript]
        self.rows = np.unique(np.concatenate(held))

    def to_global_array(self, local: Any) -> jax.Array:
        """Builds the global array, batch axis first, from the rows of this process."""
        local = np.asarray(local)

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(self._batch_size)
            first = int(np.searchsorted(self.rows, start))
            return local[first : first + stop - start]

        shape = (self._batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, part)

    def __call__(self, batch: dict[str, Any]) -> DeviceSplit:
        """Places the rows of this process on the devices."""
        arrays = {
            name: self.to_global_array(rows) for name, rows in batch.items() if name != WEIGHT
        }
        return DeviceSplit(arrays, *self._constants, per_image=self._per_image)


class StreamedFeed:
    """Feed of a streamed training set; the next batch is copied to the devices during a step.

    Args:
        split: training set.
        train_step: (state, batch) -> state, compiled; the state is donated.
        maker: assembles batches.
        batch_size: global batch size.
        total_steps: steps of the whole training.
        options: workers, threads and prefetch of the reader.
        seed: seed of the order and the random crops.
        flip: whether the reader of a `StreamedSplit` flips images at random.
        crop_area: range of the area of random crops by the reader of a `StreamedSplit`.

    Attributes:
        train_step: the compiled step.
        waiting: prefetched batch of the next step, or None.
    """

    longest_group = 1

    def __init__(
        self,
        split: StreamedSplit | ExampleSource,
        train_step: StreamedStep,
        maker: BatchMaker,
        *,
        batch_size: int,
        total_steps: int,
        options: StreamOptions,
        seed: int,
        flip: bool,
        crop_area: tuple[float, float],
    ):
        self._split, self.train_step, self._maker = split, train_step, maker
        self._batch_size, self._total_steps = batch_size, total_steps
        self._options, self._seed = options, seed
        self._flip, self._crop_area = flip, crop_area
        self._stream: Iterator[dict[str, np.ndarray]] | None = None
        self._next_step = -1
        self.waiting: DeviceSplit | None = None
        self._read_error: UserError | None = None
        self._waited, self._since = 0.0, time.monotonic()

    def prepare(self, step: int) -> None:
        """See `Feed`."""
        if step != self._next_step:
            self._open(step)
        if self.waiting is None and self._read_error is None:
            self._fetch()
        if self._read_error is not None:
            raise self._read_error

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See `Feed`."""
        for number in range(step, step + count):
            self.prepare(number)
            batch, self.waiting = self.waiting, None
            assert batch is not None
            state = self.train_step(state, batch)
            self._next_step = number + 1
            if self._next_step < self._total_steps:
                self._fetch()
        return state

    def measures(self) -> dict[str, float]:
        """Returns ``input_wait``, the share of the time that was spent waiting for batches."""
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return {"input_wait": share}

    def close(self) -> None:
        """See `Feed`."""
        if self._stream is not None:
            self._stream.close()  # pyright: ignore[reportAttributeAccessIssue]
            self._stream = None

    def _open(self, step: int) -> None:
        self.close()
        self.waiting = self._read_error = None
        self._next_step = step
        self._stream = stream(
            self._split,
            rows=self._maker.rows,
            batch_size=self._batch_size,
            first=step,
            batches=self._total_steps - step,
            options=self._options,
            seed=self._seed,
            flip=self._flip,
            crop_area=self._crop_area,
        )

    def _fetch(self) -> None:
        assert self._stream is not None
        began = time.monotonic()
        try:
            self.waiting = self._maker(next(self._stream))
        except UserError as error:
            # Raised by `prepare` of this step, so that the steps before it are not lost.
            self._read_error = error
        self._waited += time.monotonic() - began


def make_streamed_evaluate(
    task: Task,
    maker: BatchMaker,
    *,
    batch_size: int,
    sharding: NamedSharding,
    options: StreamOptions,
) -> Evaluate:
    """Builds the evaluation of a streamed split, see `evaluation.make_evaluate`.

    The evaluation is a collective, called by all processes.

    Args:
        task: network and measures; the network is applied with ``train=False``.
        maker: assembles batches of `batch_size`.
        batch_size: global number of examples per compiled step.
        sharding: sharding of a batch.
        options: workers, threads and prefetch of the reader.
    """
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())

    def evaluate_batch(variables, data, weight):
        return task.evaluate_batch(variables, {**finish_rows(data, data.arrays), WEIGHT: weight})

    compiled = jax.jit(evaluate_batch, out_shardings=everywhere)

    def evaluate(variables: Any, split: Any) -> dict[str, float]:
        if jax.process_count() > 1 and jax.tree.leaves(variables)[0].is_fully_addressable:
            variables = put(variables, everywhere)
        totals = None
        for batch in stream(
            split,
            rows=maker.rows,
            batch_size=batch_size,
            first=0,
            batches=evaluation_batches(split, batch_size),
            options=options,
        ):
            found = compiled(variables, maker(batch), maker.to_global_array(batch[WEIGHT]))
            totals = metrics_lib.merge(totals, found) if totals else found
        return finish(totals, split.size)

    return evaluate
