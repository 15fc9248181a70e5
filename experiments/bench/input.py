"""How fast photographs become batches, whether memory stays, and what of a step is waiting."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import time
from pathlib import Path

import jax
import numpy as np

from adaptive_nets.data import StreamedSplit, load
from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.setup import set_up
from adaptive_nets.training.streamed import StreamedFeed


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One pass over the set.

    Attributes:
        examples: that were read, decoded, cropped and flipped.
        seconds: it took.
        resident_bytes: memory of this process at its end.
    """

    examples: int
    seconds: float
    resident_bytes: int


@dataclasses.dataclass(frozen=True)
class Share:
    """Training with the stream beside training on one batch that stays.

    Attributes:
        network: that was trained.
        batch: images per step.
        steps: that were timed.
        seconds_streamed: per step, median, with its own batch.
        seconds_resident: per step, median, with a batch that is there already.
        extra: what reading adds to a step, as a share of it; cores that decode are cores that do
            not train, so on a processor it is more than waiting.
    """

    network: str
    batch: int
    steps: int
    seconds_streamed: float
    seconds_resident: float
    extra: float


def repeat_files(split: StreamedSplit, copies: int) -> StreamedSplit:
    """The same files so many times, so that a small set stands for a large one."""
    return dataclasses.replace(
        split,
        paths=split.paths * copies,
        lengths=split.lengths * copies,
        count=split.count * copies,
    )


def open_split(name: str, root: Path | None, copies: int) -> StreamedSplit:
    """The training part of a set that is read while training.

    Raises:
        UserError: it is not there, or is one that is held in memory.
    """
    streams = load(name, root=root, splits=("train",)).streams
    if not streams:
        raise UserError(f"--data is {name!r}; expected a set that is read while training: imagenet")
    return repeat_files(streams["train"], copies)


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def read_epochs(
    split: StreamedSplit, *, batch_size: int, epochs: int, options: StreamOptions
) -> list[Epoch]:
    """Reads the set as training does, and throws it away."""
    each = len(split) // batch_size
    if not each:
        raise UserError(
            f"--batch-size is {batch_size}; expected at most the {len(split)} training examples"
        )
    batches = stream(
        split,
        rows=np.arange(batch_size),
        batch_size=batch_size,
        first=0,
        batches=epochs * each,
        options=options,
        seed=0,
        flip=True,
    )
    found = []
    for _ in range(epochs):
        began = time.monotonic()
        examples = sum(len(batch["label"]) for batch in itertools.islice(batches, each))
        seconds = time.monotonic() - began
        gc.collect()
        found.append(Epoch(examples, round(seconds, 3), resident_bytes()))
    return found


def share_of_step(
    name: str, root: Path | None, *, network: str, batch_size: int, steps: int, copies: int,
    options: StreamOptions,
) -> Share:  # fmt: skip
    """Times steps of a training with and without the input."""
    dataset = load(name, root=root)
    streams = {part: repeat_files(split, copies) for part, split in dataset.streams.items()}
    dataset = dataclasses.replace(dataset, streams=streams)
    config = TrainConfig(
        data=DataConfig(
            name=name, batch_size=batch_size, eval_batch_size=batch_size, flip=True,
            standardise=True,
        ),
        model=ModelConfig(name=network),
        optimiser=OptimiserConfig(name="sgd", learning_rate=0.1),
        schedule=ScheduleConfig(length=f"{2 * steps + 2} steps"),
        run=RunConfig(
            input_workers=options.workers, input_threads=options.threads,
            input_prefetch=options.prefetch,
        ),
    )  # fmt: skip
    setup = set_up(classification_task(create_model(network)), config, dataset, seed=0)
    feed = setup.feed
    assert isinstance(feed, StreamedFeed)
    times: dict[str, list[float]] = {"streamed": [], "resident": []}
    state = jax.block_until_ready(feed.advance(setup.create_state(), 0, 1))
    for step in range(1, steps + 1):
        began = time.monotonic()
        state = jax.block_until_ready(feed.advance(state, step, 1))
        times["streamed"].append(time.monotonic() - began)
    train_step, batch = feed.train_step, feed.waiting
    assert batch is not None
    for _ in range(steps):
        began = time.monotonic()
        state = jax.block_until_ready(train_step(state, batch))
        times["resident"].append(time.monotonic() - began)
    feed.close()
    streamed, resident = (float(np.median(times[kind])) for kind in ("streamed", "resident"))
    return Share(
        network=network,
        batch=batch_size,
        steps=steps,
        seconds_streamed=round(streamed, 4),
        seconds_resident=round(resident, 4),
        extra=round(1 - resident / streamed, 4),
    )
