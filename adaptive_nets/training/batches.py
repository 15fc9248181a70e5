"""Shapes of the rows of a data set, and the choice of their on-device augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.device import Augment, Augmentation
from adaptive_nets.data.splits import ExampleSource, Split, StreamedSplit
from adaptive_nets.training.config import DataConfig, require
from adaptive_nets.training.task import Task

RowShapes = Mapping[str, jax.ShapeDtypeStruct]
"""Name -> stored shape and dtype of one row of that array of a data set."""


def labelled_image_shapes(image_shape: tuple[int, ...]) -> RowShapes:
    """Returns the row shapes of a data set of images with one label each."""
    return {
        "image": jax.ShapeDtypeStruct(image_shape, jnp.uint8),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
    }


def row_shapes(split: Split | StreamedSplit | ExampleSource) -> RowShapes:
    """Returns the row shapes of a split; reads the first example of an `ExampleSource`.

    Raises:
        UserError: the example cannot be read.
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
    """Returns the shapes and dtypes of a batch of one example."""
    batch = {
        name: jax.ShapeDtypeStruct((1, *row.shape), jnp.float32 if name == "image" else row.dtype)
        for name, row in rows.items()
    }
    return jax.eval_shape(task.prepare, batch)


def choose_augmentation(
    task: Task, config: DataConfig, rows: RowShapes, *, read_augmented: bool
) -> Augment | None:
    """Chooses the on-device augmentation of training rows; None for no augmentation.

    Args:
        task: the task; its own augmentation takes precedence.
        config: crops and flips of images.
        rows: row shapes of the data set.
        read_augmented: whether the reader already crops and flips images.

    Raises:
        UserError: the configuration asks for an augmentation that would not be applied.
    """
    if read_augmented:
        require(
            not config.crop_padding,
            "data.crop-padding",
            config.crop_padding,
            "0, since the reader of a streamed data set crops images itself",
        )
    colour, operations = config.colour_distortion, config.random_operations
    if "image" in rows:
        channels = rows["image"].shape[-1]
        why = f"for {channels} channels"
        require(channels == 3 or not colour, "data.colour-distortion", colour, f"False {why}")
        require(channels == 3 or not operations, "data.random-operations", operations, f"0 {why}")
    if read_augmented and not (colour or operations):
        return task.augment
    if task.augment is None and "image" in rows:
        side = min(rows["image"].shape[:2])
        require(
            config.crop_padding <= side,
            "data.crop-padding",
            config.crop_padding,
            f"at most {side}, the shorter side of the images",
        )
        flip = config.flip and not read_augmented
        return Augmentation(config.crop_padding, flip, colour, operations, config.random_magnitude)
    why = "examples have no images" if task.augment is None else "the task has its own augmentation"
    require(not config.crop_padding, "data.crop-padding", config.crop_padding, f"0, since {why}")
    require(not config.flip or read_augmented, "data.flip", config.flip, f"False, since {why}")
    require(not colour, "data.colour-distortion", colour, f"False, since {why}")
    require(not operations, "data.random-operations", operations, f"0, since {why}")
    return task.augment
