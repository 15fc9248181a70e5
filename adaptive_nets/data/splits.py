"""Splits of labelled images, and digests that identify their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Split:
    """Split of a set in memory; the arrays are read-only.

    Attributes:
        images: uint8[N, H, W, C].
        labels: int32[N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        for name in ("images", "labels"):
            # A view, so that the caller's array stays writeable.
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class StreamedSplit:
    """Split on disk, streamed during training; see `streams`.

    Attributes:
        paths: record files.
        lengths: number of records in each file.
        count: number of examples; only the first `count` records are used.
        image_shape: (H, W, C) of the decoded images.
        num_classes: number of classes.
        channel_mean: mean of each channel of the training images, in [0, 1].
        channel_deviation: standard deviation of each channel of the training images.
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
    """Loaded data set.

    Attributes:
        name: name in the catalogue.
        source: ``"tfds"``, ``"files"`` or ``"embedded"``.
        location: human-readable location of the set.
        num_classes: number of classes.
        class_names: names of the classes, by label.
        train: training split; None if it was not requested.
        test: test split; None if it was not requested.
        fingerprint: sha256, hex, of the loaded splits; see `fingerprint`.
        complete: whether every loaded split has the official number of examples.
        streams: splits of a streamed set; `train` and `test` are then None.
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
        """Returns the number of examples of ``"train"`` or ``"test"``, in memory or streamed."""
        split = self.streams.get(name) or getattr(self, name)
        return 0 if split is None else len(split)


def digest(split: Split) -> str:
    """Computes a digest of a split that does not depend on its storage format.

    The order of the examples is ignored, because TFDS's own builders shuffle them on disk.

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
    """Combines the digests of a set's splits.

    Args:
        digests: split name -> `digest`.

    Returns:
        sha256, hex, equal for all copies of these splits.
    """
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()
