"""A small data set and a small network, so that whole trainings take a second."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from adaptive_nets.data import Dataset, Split
from adaptive_nets.models.mlp import MultilayerPerceptron
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.loop import train

CLASSES = 4


def make_split(count: int, seed: int) -> Split:
    """Images 6x5x1 whose brightest quadrant is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = rng.integers(0, 60, (count, 6, 5, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[3 * row : 3 * row + 3, 2 * column : 2 * column + 2] += 120
    return Split(images.astype(np.uint8), labels)


def make_dataset() -> Dataset:
    return Dataset(
        name="quadrants",
        source="files",
        location="memory",
        num_classes=CLASSES,
        class_names=tuple("abcd"),
        train=make_split(70, 1),
        test=make_split(22, 2),
        fingerprint="0" * 64,
        complete=True,
    )


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_dataset()


def make_config() -> TrainConfig:
    return TrainConfig(
        data=DataConfig(batch_size=8, eval_batch_size=8),
        optimiser=OptimiserConfig(learning_rate=0.01),
        schedule=ScheduleConfig(length="30 steps", kind="constant"),
        run=RunConfig(
            log_every="4 steps",
            eval_every="10 steps",
            checkpoint_every="6 steps",
            tensorboard=False,
        ),
    )


@pytest.fixture
def config() -> TrainConfig:
    return make_config()


def with_values(config: TrainConfig, **groups) -> TrainConfig:
    """A configuration with some values of some groups changed."""
    changed = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in groups.items()
    }
    return dataclasses.replace(config, **changed)


def network(**options) -> MultilayerPerceptron:
    return MultilayerPerceptron(hidden=(16,), num_classes=CLASSES, **options)


def run(config, dataset, directory: Path, *, seed=0, model=None, **options):
    task = classification_task(model or network(), **options.pop("task", {}))
    directory.mkdir(parents=True, exist_ok=True)
    return train(task, config, dataset=dataset, directory=directory, seed=seed, **options)


def assert_same(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def logged(directory):
    """Returns the written lines without values that depend on the clock."""
    lines = read_json_lines(directory / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]


class StopAt(SilentProgress):
    """Sends this process a signal once so many steps are done."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def update(self, done, values=None):
        if done >= self.step:
            self.step = 10**9
            os.kill(os.getpid(), self.number)
