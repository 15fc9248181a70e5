"""Batches of photographs with boxes, read while training by Grain or held in memory.

A batch of N images with at most G boxes each, see `BoxSource.read`:

    image     uint8[N, H, W, 3]  resized, padded at the bottom and right with zeros to a bucket
    size      int32[N, 2]        height and width of the resized photograph in it
    boxes     float32[N, G, 4]   (y1, x1, y2, x2), pixels of the resized photograph; padded with 0
    labels    int32[N, G]        0 to C - 1; -1 for padding
    crowd     bool[N, G]         ignore regions: crowds, difficult objects
    image_id  int32[N]
    scale     float32[N]         resized / original pixels
    weight    float32[N]         in evaluation only: 0 for what pads the last batch of a bucket
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_nets.data.boxes.annotations import AnnotatedImage, BoxSet
from adaptive_nets.data.boxes.buckets import (
    bucket_shapes,
    choose_bucket,
    evaluation_batches,
    evaluation_example,
    training_example,
)
from adaptive_nets.data.boxes.locations import decode_image
from adaptive_nets.data.boxes.resizing import (
    Resize,
    flip_boxes,
    pad_image,
    pad_rows,
    resize_image,
    scale_boxes,
)
from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.errors import AbsentDataError
from adaptive_nets.data.splits import WEIGHT, Dataset, Split
from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.runtime.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class BoxSource:
    """Photographs of a split with their boxes, brought to batches; an `ExampleSource`.

    Args:
        images: images of the split.
        resize: sizes of the photographs.
        stride: stride of the network, pixels.
        flip: whether half of the images are mirrored in training.
        keep_empty: whether images without an object are kept; ignore regions are no objects.
            Training leaves these images out, evaluation needs them.
        max_boxes: G; the largest number of boxes of an image if None.
        aspects: aspects of further buckets, see `buckets.bucket_shapes`.
        channel_mean: mean of each channel, in [0, 1], for the normalisation by the training loop;
            that of ImageNet, which the backbones were trained on, if not given.
        channel_deviation: standard deviation of each channel.

    Raises:
        AbsentDataError: no image is left.
        UserError: a resized image is smaller than the stride, or an image has more than `max_boxes`
            boxes.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        resize: Resize,
        *,
        stride: int = 32,
        flip: bool = False,
        keep_empty: bool = True,
        max_boxes: int | None = None,
        aspects: Sequence[float] = (),
        channel_mean: Sequence[float] = IMAGENET_MEAN,
        channel_deviation: Sequence[float] = IMAGENET_DEVIATION,
    ):
        self.images = tuple(image for image in images if keep_empty or image.has_objects)
        if not self.images:
            what = "images" if keep_empty else "images with an object"
            raise AbsentDataError(f"{len(images)} images, none of them usable; expected {what}")
        self.resize, self.stride, self.flip = resize, stride, flip
        self.aspects = tuple(aspects)
        self.channel_mean, self.channel_deviation = tuple(channel_mean), tuple(channel_deviation)
        most = max(self.images, key=lambda image: len(image.boxes))
        self.max_boxes = max(1, len(most.boxes)) if max_boxes is None else max_boxes
        if self.max_boxes < len(most.boxes):
            raise UserError(
                f"max_boxes is {max_boxes}; expected at least {len(most.boxes)}, the boxes of "
                f"{most.file.where}"
            )
        shapes = bucket_shapes(resize, stride=stride, aspects=aspects)
        chosen = [choose_bucket(self._size(image), shapes) for image in self.images]
        used = sorted(set(chosen))
        self.shapes = tuple(shapes[bucket] for bucket in used)
        self._bucket_of = np.searchsorted(used, chosen)
        self._members = tuple(
            np.flatnonzero(self._bucket_of == bucket) for bucket in range(len(used))
        )

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of the largest bucket."""
        return *self.shapes[-1], 3

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of images of each bucket in `shapes`."""
        return tuple(len(members) for members in self._members)

    def first(self, count: int) -> BoxSource:
        """The first images, at most so many, with the same number of boxes G."""
        return self.replace(images=self.images[:count])

    def replace(self, **changes: Any) -> BoxSource:
        """The same source with other arguments."""
        arguments = {
            "images": self.images,
            "resize": self.resize,
            "stride": self.stride,
            "flip": self.flip,
            "max_boxes": self.max_boxes,
            "aspects": self.aspects,
            "channel_mean": self.channel_mean,
            "channel_deviation": self.channel_deviation,
            **changes,
        }
        return BoxSource(arguments.pop("images"), arguments.pop("resize"), **arguments)

    def num_batches(self, batch_size: int) -> int:
        """Returns the number of evaluation batches; each bucket has a last batch of its own."""
        return evaluation_batches(self.counts, batch_size)

    def read(self, number: int, generator: np.random.Generator | None) -> dict[str, Any]:
        """Reads one image, without the axis N of a batch; mirrored at random in training.

        Args:
            number: of the image, from 0.
            generator: for the flip; None in evaluation.

        Raises:
            DamagedDataError: the photograph cannot be read; the message names its file.
        """
        image = self.images[number]
        pixels = decode_image(
            image.file.read(), image.file.where, height=image.height, width=image.width
        )
        size = self._size(image)
        pixels = resize_image(pixels, size)
        boxes = scale_boxes(image.boxes, self._scale(image), size)
        if self.flip and generator is not None and generator.random() < 0.5:
            pixels, boxes = pixels[:, ::-1], flip_boxes(boxes, size[1])
        return {
            "image": pad_image(pixels, self.shapes[self._bucket_of[number]]),
            "size": np.array(size, np.int32),
            "boxes": pad_rows(boxes.astype(np.float32), self.max_boxes),
            "labels": pad_rows(image.labels, self.max_boxes, -1),
            "crowd": pad_rows(image.crowd, self.max_boxes),
            "image_id": np.int32(image.number),
            "scale": np.float32(self._scale(image)),
        }

    def example(self, step: int, row: int, *, batch_size: int, seed: int | None) -> dict[str, Any]:
        """Reads one row of a batch; all rows of a batch are of one bucket.

        Args:
            step: number of the batch.
            row: place in it.
            batch_size: images per batch.
            seed: seed of the order and the flips; None in evaluation, which adds ``weight``.
        """
        if seed is None:
            bucket, place, real = evaluation_example(
                self.counts, step=step, row=row, batch_size=batch_size
            )
            number = int(self._members[bucket][place])
            return {**self.read(number, None), WEIGHT: np.float32(real)}
        bucket, place, passes = training_example(
            self.counts, seed=seed, step=step, row=row, batch_size=batch_size
        )
        number = int(self._members[bucket][place])
        return self.read(number, np.random.default_rng((seed, 1 + passes, number)))

    def in_memory(self) -> Split:
        """Reads all images into arrays; for small sets of one bucket, such as BCCD.

        Raises:
            UserError: images are of several buckets, or a photograph cannot be read.
        """
        if len(self.shapes) > 1:
            raise UserError(
                f"images are padded to {len(self.shapes)} shapes, {self.shapes[0]} and others; "
                "expected one shape of a set in memory, so stream it"
            )
        rows = [self.read(number, None) for number in range(self.size)]
        return Split.of({name: np.stack([row[name] for row in rows]) for name in rows[0]})

    def _scale(self, image: AnnotatedImage) -> float:
        return self.resize.scale(image.height, image.width)

    def _size(self, image: AnnotatedImage) -> tuple[int, int]:
        size = self.resize.size(image.height, image.width)
        if min(size) < self.stride:
            raise UserError(
                f"{image.file.where} has {size[1]} x {size[0]} pixels after resizing "
                f"({image.width} x {image.height} before); expected at least {self.stride}, the "
                "stride of the network, on both sides"
            )
        return size


def detection_batches(
    source: BoxSource,
    *,
    batch_size: int,
    seed: int | None = None,
    first: int = 0,
    batches: int | None = None,
    rows: np.ndarray | None = None,
    options: StreamOptions | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of photographs with boxes, read ahead of time.

    Args:
        source: the split.
        batch_size: images per batch, of all processes together.
        seed: seed of the order and the flips, in training; None for evaluation in order.
        first: number of the first batch, such as the step that a run resumes from.
        batches: how many there are from there on; the rest of one pass if None.
        rows: places within each batch that this process reads, ascending; all if None.
        options: workers, threads and prefetch of the reader.

    Yields:
        The arrays that the module describes.

    Raises:
        DamagedDataError: a photograph cannot be read; the message names its file.
        UserError: the batch size is below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch size is {batch_size}; expected at least 1")
    if batches is None:
        once = source.num_batches(batch_size) if seed is None else -(-source.size // batch_size)
        batches = max(0, once - first)
    yield from stream(
        source,
        rows=np.arange(batch_size) if rows is None else rows,
        batch_size=batch_size,
        first=first,
        batches=batches,
        options=options or StreamOptions(),
        seed=seed,
    )


def detection_dataset(
    found: BoxSet,
    resize: Resize,
    *,
    train: str | Sequence[str] = "train",
    test: str = "val",
    flip: bool = True,
    in_memory: bool = False,
    **options: Any,
) -> Dataset:
    """Returns a set as the training loop takes it.

    A task that trains on it brings its own augmentation (`Task.augment`), since the loop's flips
    know no boxes.

    Args:
        found: the set.
        resize: sizes of the photographs.
        train: splits that are trained on; images without objects are left out.
        test: split for evaluation.
        flip: whether half of the training images are mirrored while they are read.
        in_memory: whether the images are read into arrays, unmirrored, instead of streamed.
        **options: further arguments of `BoxSource`.

    Raises:
        UserError: a split is absent, or its images do not fit the options.
    """
    parts = (train,) if isinstance(train, str) else tuple(train)
    images = [image for part in parts for image in found.split(part)]
    sources: Mapping[str, BoxSource] = {
        "train": BoxSource(images, resize, flip=flip, keep_empty=False, **options),
        "test": BoxSource(found.split(test), resize, **options),
    }
    arrays = {name: source.in_memory() for name, source in sources.items()} if in_memory else {}
    return Dataset(
        name=found.name,
        source=found.source,
        location=found.location,
        num_classes=found.num_classes,
        class_names=found.class_names,
        train=arrays.get("train"),
        test=arrays.get("test"),
        fingerprint=found.fingerprint,
        complete=_is_official(found, (*parts, test)),
        streams={} if in_memory else sources,
    )


def _is_official(found: BoxSet, parts: Sequence[str]) -> bool:
    """Returns whether splits have the official numbers of images."""
    info = CATALOGUE.get(found.name)
    counts = found.counts()
    return info is not None and all(info.splits.get(part) == counts[part] for part in parts)
