"""Data sets in device memory, shuffled, gathered, cropped and flipped on the device.

The order of examples depends only on the seed and the epoch, so it does not change with the number
of devices or when training resumes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from adaptive_nets.data.augmentations import RandomAugment
from adaptive_nets.data.colour import distort_colours
from adaptive_nets.data.splits import WEIGHT, Dataset, Split
from adaptive_nets.runtime.errors import UserError

MIDDLE = 127.5
"""Middle of the range of uint8 pixels."""
# Folded into the augmentation's key. They are part of the results: never change them.
_COLOUR = 0x636F6C
_OPERATIONS = 0x6F7073


@flax.struct.dataclass
class DeviceSplit:
    """Split of a data set in device memory.

    Attributes:
        arrays: as stored, each of M rows, by the name under which a batch holds them; see `Split`.
        offset: subtracted from the scaled pixels of ``"image"``, float32[H, W, C] or
            float32[1, 1, C]; None without images, as the two that follow.
        scale: the difference is multiplied by this, float32[1, 1, C].
        pixel_scale: pixels are divided by this first, float32[].
        per_image: whether each image is standardised by itself in the end.
    """

    arrays: dict[str, Array]
    offset: Any = None
    scale: Any = None
    pixel_scale: Any = None
    per_image: bool = flax.struct.field(pytree_node=False, default=False)

    @property
    def images(self) -> UInt8[Array, "M H W C"]:
        """The array ``"image"``."""
        return self.arrays["image"]

    @property
    def labels(self) -> Int[Array, " M"]:
        """The array ``"label"``."""
        return self.arrays["label"]

    @property
    def size(self) -> int:
        """Number of examples M."""
        return next(iter(self.arrays.values())).shape[0]

    def first(self, count: int) -> DeviceSplit:
        """The first examples, at most so many."""
        arrays = {name: array[:count] for name, array in self.arrays.items()}
        return dataclasses.replace(self, arrays=arrays)


Rows = Mapping[str, Array]
"""Examples by name, before they are the batch of a task; images are normalised."""

Augment = Callable[[PRNGKeyArray, Rows], Rows]
"""(key, rows) -> rows changed at random, for training."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to training images; an `Augment` of rows that hold an ``"image"``.

    Attributes:
        crop_padding: zeros added on each side before a random crop of the original size.
        flip: whether half of the images are mirrored left to right.
        colour_distortion: whether colours are distorted, before normalisation, see `finish_rows`.
        random_operations: number of random operations of every image, before normalisation; see
            `adaptive_nets.data.augmentations.RandomAugment`.
        random_magnitude: their largest magnitude.
    """

    crop_padding: int = 0
    flip: bool = False
    colour_distortion: bool = False
    random_operations: int = 0
    random_magnitude: float = 45.0

    def __call__(self, key: PRNGKeyArray, rows: Rows) -> Rows:
        """Rows whose images are changed; all others stay as they are."""
        if not (self.crop_padding or self.flip):
            return rows
        return {**rows, "image": augment(key, rows["image"], self)}


def normalisation(images: np.ndarray, config: PixelScaling) -> tuple[np.ndarray, np.ndarray]:
    """Computes offset and scale that centre (and standardise) images by training statistics.

    Args:
        images: uint8[M, H, W, C], training images.
        config: normalisation of images.

    Returns:
        (offset, scale): float32[H, W, C] or float32[1, 1, C], and float32[1, 1, C].

    Raises:
        UserError: the configuration gives no normalisation of these images.
    """
    channels, centre, pixel_scale = images.shape[-1], config.centre, config.pixel_scale
    if (given := given_normalisation(config, channels)) is not None:
        return given
    # Integer sums, so that the statistics do not depend on the order of summation.
    values = np.arange(256)
    histograms = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(channels)]
    count = images[..., 0].size
    mean = np.array([h @ values for h in histograms]) / count
    if centre == "pixel":
        offset = images.sum(axis=0, dtype=np.int64) / len(images) / pixel_scale
    else:
        centres = {"channel": mean, "middle": np.full(channels, MIDDLE)}
        offset = centres.get(centre, np.zeros(channels)) / pixel_scale
    scale = np.ones(channels)
    if config.standardise:
        variance = np.array([h @ values**2 for h in histograms]) / count - mean**2
        scale = pixel_scale / np.sqrt(np.maximum(variance, 1e-12))
    shape = images.shape[1:] if centre == "pixel" else (1, 1, channels)
    return offset.reshape(shape).astype(np.float32), scale.reshape(1, 1, -1).astype(np.float32)


def given_normalisation(
    config: PixelScaling, channels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns offset and scale of a configuration that gives mean and deviation, else None.

    Args:
        config: normalisation of images.
        channels: number of channels of the images.

    Returns:
        (offset, scale), float32[1, 1, C].

    Raises:
        UserError: they have another number of channels, or are those of a network that a run
            starts from, and it starts from none.
    """
    if config.centre == "source":
        raise UserError(
            "--data.centre is 'source'; expected none, channel, pixel or middle, since this run "
            "starts from no network"
        )
    if not config.mean:
        return None
    if len(config.mean) != channels:
        raise UserError(
            f"--data.mean has {len(config.mean)} values; expected {channels}, the channels of the "
            "images"
        )
    unit = 255.0 / config.pixel_scale
    offset, scale = unit * np.array(config.mean), 1 / (unit * np.array(config.std))
    shape = (1, 1, channels)
    return offset.reshape(shape).astype(np.float32), scale.reshape(shape).astype(np.float32)


def epoch_order(key: PRNGKeyArray, epoch: Int[Array, ""], count: int) -> Int[Array, " M"]:
    """Returns the order of the training examples in one epoch, int32[M]."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)


def normalise(data: DeviceSplit, images: Array) -> Float[Array, "N H W C"]:
    """Normalises pixels in [0, 255], uint8 or float, to network inputs, float32."""
    scaled = images.astype(jnp.float32) / data.pixel_scale
    return (scaled - data.offset[None]) * data.scale[None]


def standardise_each(images: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
    """Standardises every image to mean 0 and standard deviation 1.

    As in TensorFlow's `per_image_standardization`, the deviation is at least 1/√(H·W·C), so a
    constant image becomes zero.
    """
    axes = (1, 2, 3)
    mean = jnp.mean(images, axis=axes, keepdims=True)
    deviation = jnp.std(images, axis=axes, keepdims=True)
    return (images - mean) / jnp.maximum(deviation, images[0].size ** -0.5)


def augment(
    key: PRNGKeyArray, images: Float[Array, "N H W C"], augmentation: Augmentation
) -> Float[Array, "N H W C"]:
    """Crops and flips each image independently; pads normalised images with zeros."""
    n, height, width, channels = images.shape
    crop_key, flip_key = jax.random.split(key)
    if augmentation.crop_padding:
        p = augmentation.crop_padding
        padded = jnp.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
        corners = jax.random.randint(crop_key, (n, 2), 0, 2 * p + 1)

        def crop(image, corner):
            start = (corner[0], corner[1], jnp.int32(0))
            return lax.dynamic_slice(image, start, (height, width, channels))

        images = jax.vmap(crop)(padded, corners)
    if augmentation.flip:
        mirrored = jax.random.bernoulli(flip_key, 0.5, (n, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images


def finish_rows(
    data: DeviceSplit,
    rows: Rows,
    *,
    key: PRNGKeyArray | None = None,
    augmentation: Augment | None = None,
) -> dict[str, Array]:
    """Rows as they were stored, as a task gets them.

    Args:
        data: the split that they are of, for the normalisation of their images.
        rows: as stored.
        key: for the augmentation.
        augmentation: random changes, of training; None in evaluation.
    """
    if "image" in rows:
        images = rows["image"]
        if isinstance(augmentation, Augmentation) and augmentation.colour_distortion:
            assert key is not None
            images = 255.0 * distort_colours(jax.random.fold_in(key, _COLOUR), images / 255.0)
        if isinstance(augmentation, Augmentation) and augmentation.random_operations:
            assert key is not None
            random = RandomAugment(
                augmentation.random_operations, augmentation.random_magnitude, crop=False
            )
            pixels = jnp.round(images.astype(jnp.float32))
            images = random(jax.random.fold_in(key, _OPERATIONS), pixels)
        rows = {**rows, "image": normalise(data, images)}
    if augmentation is not None:
        assert key is not None
        rows = augmentation(key, rows)
    if data.per_image and "image" in rows:
        rows = {**rows, "image": standardise_each(rows["image"])}
    return dict(rows)


def _gather(data: DeviceSplit, indices: Array, sharding: NamedSharding | None) -> Rows:
    if sharding is not None:
        # Shard the indices before the gather, so that each device gathers only its own examples.
        indices = lax.with_sharding_constraint(indices, sharding)
    return {
        name: array.at[indices].get(mode="promise_in_bounds") for name, array in data.arrays.items()
    }


def take_training_batch(
    data: DeviceSplit,
    order: Int[Array, " M"],
    step: Int[Array, ""],
    *,
    batch_size: int,
    key: PRNGKeyArray,
    augmentation: Augment,
    sharding: NamedSharding | None = None,
) -> dict[str, Array]:
    """Returns the training batch of one step, the next examples in the epoch's order.

    A last, smaller batch is dropped; the dropped examples differ between epochs.

    Args:
        data: training set, replicated on every device.
        order: order of this epoch, from `epoch_order`.
        step: int32[], global step.
        batch_size: global batch size B.
        key: for the augmentation of this step.
        augmentation: random changes.
        sharding: how the batch is divided over devices, or None.

    Returns:
        B rows of every array; images are float32[B, H, W, C].
    """
    position = step % (order.shape[0] // batch_size)
    indices = lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
    return finish_rows(data, _gather(data, indices, sharding), key=key, augmentation=augmentation)


def take_eval_batch(
    data: DeviceSplit,
    start: Int[Array, ""],
    *,
    batch_size: int,
    sharding: NamedSharding | None = None,
) -> dict[str, Array]:
    """Returns the examples [start, start + B) in stored order, padded at the end.

    Returns:
        B rows of every array, and "weight": float32[B], 1 for examples and 0 for padding.
    """
    indices = start + jnp.arange(batch_size)
    weight = (indices < data.size).astype(jnp.float32)
    rows = _gather(data, jnp.minimum(indices, data.size - 1), sharding)
    return {**finish_rows(data, rows), WEIGHT: weight}


class PixelScaling(Protocol):
    """Settings of image normalisation; see `DataConfig` for each value."""

    @property
    def pixel_scale(self) -> float: ...  # noqa: D102

    @property
    def centre(self) -> Literal["none", "channel", "pixel", "middle", "source"]: ...  # noqa: D102

    @property
    def standardise(self) -> bool: ...  # noqa: D102

    @property
    def mean(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def std(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def per_image(self) -> bool: ...  # noqa: D102


def put_on_devices(
    dataset: Dataset, config: PixelScaling, place: Callable[[DeviceSplit], DeviceSplit]
) -> tuple[DeviceSplit, DeviceSplit]:
    """Copies training and test set to devices, normalised by statistics of the training images.

    Args:
        dataset: data set with both splits in host memory.
        config: normalisation of images.
        place: copies a split of host arrays to its devices.
    """
    train, test = dataset.train, dataset.test
    assert train is not None
    assert test is not None
    constants = (None, None, None)
    if "image" in train.arrays:
        offset, scale = normalisation(train.images, config)
        constants = (offset, scale, np.float32(config.pixel_scale))

    def on_host(split: Split) -> DeviceSplit:
        arrays: Any = dict(split.arrays)
        return DeviceSplit(arrays, *constants, per_image=config.per_image)

    return place(on_host(train)), place(on_host(test))
