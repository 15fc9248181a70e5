"""Labelled images in memory, and the checksum by which copies of a set are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Split:
    """One split of a set; the arrays are read-only.

    Attributes:
        images: uint8[N, H, W, C].
        labels: int32[N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        for name in ("images", "labels"):
            # A view, so that an array of the caller's stays as it was.
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class StreamedSplit:
    """One split on disk, read while training; see `streams`.

    Attributes:
        paths: files of records.
        lengths: records in each.
        count: examples that are used, the first so many.
        image_shape: (H, W, C) that images are brought to.
        num_classes: of the labels.
        channel_mean: of each channel of the training images, in [0, 1].
        channel_deviation: their standard deviation.
    """

    paths: tuple[str, ...]
    lengths: tuple[int, ...]
    count: int
    image_shape: tuple[int, int, int]
    num_classes: int
    channel_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    channel_deviation: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.count


@dataclass(frozen=True)
class Dataset:
    """A set that was loaded.

    Attributes:
        name: its name in the catalogue.
        source: ``"tfds"``, ``"files"`` or ``"embedded"``.
        location: where it was read from, for people.
        num_classes: number of classes.
        class_names: names of the classes, by label.
        train: the training split, or None if it was not asked for.
        test: the test split, or None if it was not asked for.
        fingerprint: sha256, hex, of the loaded splits; see `fingerprint`.
        complete: whether every loaded split has the official number of examples.
        streams: the splits of a set that is read while training; `train` and `test` are then None.
    """

    name: str
    source: str
    location: str
    num_classes: int
    class_names: tuple[str, ...]
    train: Split | None
    test: Split | None
    fingerprint: str
    complete: bool
    streams: Mapping[str, StreamedSplit] = field(default_factory=dict)

    def count(self, name: str) -> int:
        """Number of examples of ``"train"`` or ``"test"``, in memory or not."""
        split = self.streams.get(name) or getattr(self, name)
        return 0 if split is None else len(split)


def digest(split: Split) -> str:
    """Sums up a split so that two copies agree whatever file they came from.

    The order of the examples does not count, because TFDS's own builders shuffle them on disk.

    Args:
        split: images uint8[N, H, W, C] and labels int32[N].

    Returns:
        sha256, hex, of the shape and of the sorted sha256 sums of label and pixels of each example.
    """
    images = np.ascontiguousarray(split.images).reshape(len(split), -1)
    labels = split.labels.astype("<i4")
    rows = np.concatenate([labels.view(np.uint8).reshape(len(split), 4), images], axis=1)
    sums = sorted(hashlib.sha256(row).digest() for row in rows)
    total = hashlib.sha256(repr(tuple(map(int, split.images.shape))).encode())
    total.update(b"".join(sums))
    return total.hexdigest()


def fingerprint(digests: Mapping[str, str]) -> str:
    """Sums up the splits of a set.

    Args:
        digests: `digest` of each split, by its name.

    Returns:
        sha256, hex; the same for every copy of these splits.
    """
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()
