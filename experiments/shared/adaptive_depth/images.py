"""Test images of a measurement: a set on the device, or one that is streamed from disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import WEIGHT, StreamedSplit
from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.streamed import normalisation_constants


@dataclasses.dataclass(frozen=True)
class StreamedImages:
    """Photographs that are decoded during the measurement, centrally cropped.

    Attributes:
        split: test split on disk.
        config: normalisation and reading of the images.
    """

    split: StreamedSplit
    config: TrainConfig

    @property
    def size(self) -> int:
        """Number of images."""
        return self.split.size

    def batches(self, batch_size: int) -> Iterator[DeviceSplit]:
        """Yields batches of `batch_size` images on the default device, the last one padded."""
        run = self.config.run
        constants = normalisation_constants(self.split, self.config.data)
        place = SingleDeviceSharding(jax.local_devices()[0])
        for batch in stream(
            self.split,
            rows=np.arange(batch_size),
            batch_size=batch_size,
            first=0,
            batches=-(-self.size // batch_size),
            options=StreamOptions(run.input_workers, run.input_threads, run.input_prefetch),
        ):
            arrays: dict[str, Any] = {name: rows for name, rows in batch.items() if name != WEIGHT}
            part = DeviceSplit(arrays, *constants, per_image=self.config.data.per_image)
            yield jax.device_put(part, place)


TestImages = DeviceSplit | StreamedImages


def images_of(test: Any, config: TrainConfig) -> TestImages:
    """Returns the test images of a training's result.

    Args:
        test: `TrainResult.test`, a `DeviceSplit` or a streamed split.
        config: configuration of the training.
    """
    return StreamedImages(test, config) if isinstance(test, StreamedSplit) else test


def image_size(data: TestImages) -> tuple[int, int]:
    """Returns (H, W) of the images."""
    shape = data.split.image_shape if isinstance(data, StreamedImages) else data.images.shape[1:]
    return int(shape[0]), int(shape[1])


def batches_of(data: TestImages, batch_size: int) -> Iterator[tuple[DeviceSplit, int, int]]:
    """Yields (split, index of the batch's first image in it, number of that image in the set)."""
    if isinstance(data, StreamedImages):
        for i, part in enumerate(data.batches(batch_size)):
            yield part, 0, i * batch_size
    else:
        for start in range(0, data.size, batch_size):
            yield data, start, start
