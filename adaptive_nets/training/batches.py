"""Rows of a data set as the batches of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from adaptive_nets.data.device import (
    Augment,
    Augmentation,
    DeviceSplit,
    finish_rows,
    normalisation,
    take_training_batch,
)
from adaptive_nets.data.splits import Dataset, ExampleSource, Split, StreamedSplit
from adaptive_nets.training.config import DataConfig, require
from adaptive_nets.training.distributed import put
from adaptive_nets.training.mesh import replicated
from adaptive_nets.training.state import TrainState
from adaptive_nets.training.step import AUGMENT, Take
from adaptive_nets.training.task import Batch, Task

RowShapes = Mapping[str, jax.ShapeDtypeStruct]
"""Shape and dtype of one row of every array of a data set, as it is stored."""


def labelled_image_shapes(image_shape: tuple[int, ...]) -> RowShapes:
    """Rows of a set of images with one label each."""
    return {
        "image": jax.ShapeDtypeStruct(image_shape, jnp.uint8),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
    }


def row_shapes(split: Split | StreamedSplit | ExampleSource) -> RowShapes:
    """Rows of a split; of a source, its first example is read.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(split, StreamedSplit):
        return labelled_image_shapes(split.image_shape)
    if isinstance(split, Split):
        rows = {name: array[0] for name, array in split.arrays.items()}
    else:
        rows = split.read(0, None)
    return {
        name: jax.ShapeDtypeStruct(np.shape(row), np.asarray(row).dtype)
        for name, row in rows.items()
    }


def example_shapes(task: Task, rows: RowShapes) -> Any:
    """Shapes of a batch of one example."""
    batch = {
        name: jax.ShapeDtypeStruct((1, *row.shape), jnp.float32 if name == "image" else row.dtype)
        for name, row in rows.items()
    }
    return jax.eval_shape(task.prepare, batch)


def choose_augmentation(
    task: Task, config: DataConfig, rows: RowShapes, *, read_augmented: bool
) -> Augment | None:
    """Random changes to training rows that are made on the devices.

    Args:
        task: may bring its own.
        config: crops and flips of images.
        rows: of the data set.
        read_augmented: whether images are cropped and flipped when they are read.

    Raises:
        UserError: the configuration asks for changes that would not be made.
    """
    if read_augmented:
        require(
            not config.crop_padding,
            "data.crop-padding",
            config.crop_padding,
            "0, since images that are read while training are cropped when they are read",
        )
        return task.augment
    if task.augment is None and "image" in rows:
        return Augmentation(config.crop_padding, config.flip)
    why = "examples have no images" if task.augment is None else "the task has its own changes"
    require(not config.crop_padding, "data.crop-padding", config.crop_padding, f"0, since {why}")
    require(not config.flip, "data.flip", config.flip, f"False, since {why}")
    return task.augment


def take_resident(
    task: Task, augmentation: Augment | None, *, batch_size: int, sharding: NamedSharding
) -> Take:
    """Builds (state, training set, this epoch's order) -> the next batch of the order.

    Args:
        task: makes batches of rows.
        augmentation: random changes to the rows.
        batch_size: global batch size.
        sharding: how batches lie on the devices.
    """

    def take(state: TrainState, data: DeviceSplit, order: Array) -> Batch:
        rows = take_training_batch(
            data,
            order,
            state.step,
            batch_size=batch_size,
            key=state.key(AUGMENT),
            augmentation=augmentation or _unchanged,
            sharding=sharding,
        )
        return task.prepare(rows)

    return take


def take_streamed(task: Task, augmentation: Augment | None) -> Take:
    """Builds (state, the rows of a batch) -> batch; arguments as of `take_resident`."""

    def take(state: TrainState, data: DeviceSplit) -> Batch:
        key = state.key(AUGMENT)
        return task.prepare(finish_rows(data, data.arrays, key=key, augmentation=augmentation))

    return take


def _unchanged(key: Any, rows: Any) -> Any:
    return rows


class PixelScaling(Protocol):
    """Normalisation of images; `DataConfig` says what each value does."""

    @property
    def pixel_scale(self) -> float: ...  # noqa: D102

    @property
    def centre(self) -> Literal["none", "channel", "pixel"]: ...  # noqa: D102

    @property
    def standardise(self) -> bool: ...  # noqa: D102

    @property
    def per_image(self) -> bool: ...  # noqa: D102


def put_on_devices(
    dataset: Dataset, config: PixelScaling, mesh: Mesh
) -> tuple[DeviceSplit, DeviceSplit]:
    """Copies training and test set to every device, with the statistics of the training images.

    Args:
        dataset: both splits in memory.
        config: how images are normalised.
        mesh: the devices.
    """
    train, test = dataset.train, dataset.test
    assert train is not None
    assert test is not None
    constants = (None, None, None)
    if "image" in train.arrays:
        offset, scale = normalisation(
            train.images,
            pixel_scale=config.pixel_scale,
            centre=config.centre,
            standardise=config.standardise,
        )
        constants = (offset, scale, np.float32(config.pixel_scale))

    def place(split: Split) -> DeviceSplit:
        arrays: Any = dict(split.arrays)
        host = DeviceSplit(arrays, *constants, per_image=config.per_image)
        return put(host, replicated(mesh))

    return place(train), place(test)
