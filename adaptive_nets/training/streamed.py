"""Training and evaluation on sets that are read while they are used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from adaptive_nets.data.device import DeviceSplit, normalise, standardise_each
from adaptive_nets.data.splits import StreamedSplit
from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.models import logits_of
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.config import DataConfig
from adaptive_nets.training.distributed import put
from adaptive_nets.training.evaluation import Evaluate
from adaptive_nets.training.losses import cross_entropy, is_error
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.state import TrainState

StreamedStep = Callable[[TrainState, DeviceSplit], TrainState]


def normalisation_constants(
    split: StreamedSplit, config: DataConfig
) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Offset, scale and pixel scale of `DeviceSplit`, from what is known of the set's images.

    Raises:
        UserError: the configuration asks for what only a set in memory can give.
    """
    if config.centre == "pixel":
        raise UserError(
            "--data.centre is 'pixel'; expected none or channel, since the set is read while "
            "training"
        )
    unit = 255.0 / config.pixel_scale
    mean = np.zeros(3) if config.centre == "none" else unit * np.asarray(split.channel_mean)
    scale = np.ones(3)
    if config.standardise:
        scale = 1 / (unit * np.asarray(split.channel_deviation))
    shape = (1, 1, 3)
    return (
        mean.reshape(shape).astype(np.float32),
        scale.reshape(shape).astype(np.float32),
        np.float32(config.pixel_scale),
    )


class BatchMaker:
    """Lays the rows that each process has read out as one batch over all devices.

    Args:
        batch_size: of all processes together.
        sharding: how the batch is divided.
        constants: offset, scale and pixel scale, see `DeviceSplit`.
        per_image: whether each image is standardised by itself in the end.

    Attributes:
        rows: places within a batch that this process is to read.
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
        """An array whose first axis is the batch, from this process's rows of it."""
        local = np.asarray(local)

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(self._batch_size)
            first = int(np.searchsorted(self.rows, start))
            return local[first : first + stop - start]

        shape = (self._batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, part)

    def __call__(self, batch: dict[str, Any]) -> DeviceSplit:
        """What was read, on the devices."""
        return DeviceSplit(
            self.to_global_array(batch["image"]),
            self.to_global_array(batch["label"]),
            *self._constants,
            per_image=self._per_image,
        )


def take_streamed_batch(data: DeviceSplit) -> dict[str, Array]:
    """The batch as a network sees it; cropped and flipped it was when it was read."""
    images = normalise(data, data.images)
    return {
        "image": standardise_each(images) if data.per_image else images,
        "label": data.labels,
    }


class StreamedFeed:
    """Batches come from the host; while a step runs, the next one is brought to the devices.

    Args:
        split: the training set.
        train_step: (state, batch) -> state, compiled; the state is donated.
        maker: lays batches out.
        batch_size: of all processes together.
        total_steps: of the run.
        options: how to read.
        seed: of the order and the random crops.
        flip: mirror half of the images.

    Attributes:
        train_step: as given.
        waiting: the batch of the next step, if it is on the devices already.
    """

    longest_group = 1

    def __init__(
        self,
        split: StreamedSplit,
        train_step: StreamedStep,
        maker: BatchMaker,
        *,
        batch_size: int,
        total_steps: int,
        options: StreamOptions,
        seed: int,
        flip: bool,
    ):
        self._split, self.train_step, self._maker = split, train_step, maker
        self._batch_size, self._total_steps = batch_size, total_steps
        self._options, self._seed, self._flip = options, seed, flip
        self._stream: Iterator[dict[str, np.ndarray]] | None = None
        self._next_step = -1
        self.waiting: DeviceSplit | None = None
        self._trouble: UserError | None = None
        self._waited, self._since = 0.0, time.monotonic()

    def prepare(self, step: int) -> None:
        """See `Feed`."""
        if step != self._next_step:
            self._open(step)
        if self.waiting is None and self._trouble is None:
            self._fetch()
        if self._trouble is not None:
            raise self._trouble

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
        """Share of the time that was spent waiting for batches."""
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
        self.waiting = self._trouble = None
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
        )

    def _fetch(self) -> None:
        assert self._stream is not None
        began = time.monotonic()
        try:
            self.waiting = self._maker(next(self._stream))
        except UserError as error:
            # Raised when the step is due, so that those before it are not lost.
            self._trouble = error
        self._waited += time.monotonic() - began


def make_streamed_evaluate(
    model: nn.Module,
    maker: BatchMaker,
    *,
    batch_size: int,
    sharding: NamedSharding,
    options: StreamOptions,
) -> Evaluate:
    """Builds what `evaluation.make_evaluate` does, for sets that are read; all processes call it.

    Args:
        model: the network; it is applied with ``train=False``.
        maker: lays batches of this size out.
        batch_size: examples per compiled step, of all processes together.
        sharding: how the batch is divided.
        options: how to read.
    """
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())

    def evaluate_batch(variables, data, weight):
        batch = take_streamed_batch(data)
        logits = logits_of(model.apply(variables, batch["image"], train=False))
        return {
            "nll": Mean.of(cross_entropy(logits, batch["label"]), weight),
            "error": Mean.of(is_error(logits, batch["label"]), weight),
        }

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
            batches=-(-len(split) // batch_size),
            options=options,
        ):
            found = compiled(variables, maker(batch), maker.to_global_array(batch["weight"]))
            totals = metrics_lib.merge(totals, found) if totals else found
        if totals is None:
            raise ValueError("there is nothing to evaluate: the split is empty")
        return {**metrics_lib.compute(totals), "count": len(split)}

    return evaluate
