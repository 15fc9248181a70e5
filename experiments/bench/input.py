"""Throughput and memory of the photograph pipeline, and its share of a training step."""

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
    """One pass over the data set.

    Attributes:
        examples: Number of examples read, decoded, cropped and flipped.
        seconds: Duration.
        resident_bytes: Resident memory of this process at the end.
    """

    examples: int
    seconds: float
    resident_bytes: int


@dataclasses.dataclass(frozen=True)
class Share:
    """Times of training steps with and without the input pipeline.

    Attributes:
        network: Name of the trained network.
        batch: Images per step.
        steps: Number of timed steps.
        seconds_streamed: Median time of a step that reads its own batch.
        seconds_resident: Median time of a step on a batch that is on the device already.
        extra: Share of a streamed step's time that reading adds. On a CPU it exceeds the waiting
            time, since decoding takes cores from training.
    """

    network: str
    batch: int
    steps: int
    seconds_streamed: float
    seconds_resident: float
    extra: float


def repeat_files(split: StreamedSplit, copies: int) -> StreamedSplit:
    """Repeats the files of a split, so that a small set stands in for a large one."""
    return dataclasses.replace(
        split,
        paths=split.paths * copies,
        lengths=split.lengths * copies,
        count=split.count * copies,
    )


def open_split(name: str, root: Path | None, copies: int) -> StreamedSplit:
    """Opens the training split of a streamed data set.

    Raises:
        UserError: The data set is absent, or is held in memory.
    """
    streams = load(name, root=root, splits=("train",)).streams
    if not streams:
        raise UserError(f"--data is {name!r}; expected a streamed data set: 'imagenet'")
    return repeat_files(streams["train"], copies)


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def read_epochs(
    split: StreamedSplit, *, batch_size: int, epochs: int, options: StreamOptions
) -> list[Epoch]:
    """Reads the split as training does, and discards the batches."""
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
    """Times training steps on streamed batches, then on one resident batch."""
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
