"""Data sets as named arrays, and the checksum by which copies of a set are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np

WEIGHT = "weight"
"""Name under which a batch of evaluation holds 1 for each example and 0 for padding."""


@dataclass(frozen=True, init=False)
class Split:
    """One split of a set in memory: named arrays with a row for each example, read-only.

    Attributes:
        arrays: by the name under which a batch holds its rows: ``"image"`` (uint8[N, H, W, C]),
            ``"label"`` (int32[N]), and whatever else a task needs, such as boxes.
    """

    arrays: Mapping[str, np.ndarray]

    def __init__(
        self,
        images: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        **others: np.ndarray,
    ):
        """Collects the arrays under their names in a batch.

        Args:
            images: uint8[N, H, W, C], named ``"image"``.
            labels: int32[N], named ``"label"``.
            **others: any further arrays of N rows.
        """
        given = {"image": images, "label": labels, **others}
        self._hold({name: array for name, array in given.items() if array is not None})

    @classmethod
    def of(cls, given: Mapping[str, np.ndarray]) -> Split:
        """Returns a split of arrays of any names, such as ``"labels"``."""
        split = object.__new__(cls)
        split._hold(given)
        return split

    def _hold(self, given: Mapping[str, np.ndarray]) -> None:
        arrays = {name: array.view() for name, array in given.items()}
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"arrays have {sizes} rows; expected at least one, and equally many")
        if WEIGHT in arrays:
            raise ValueError(f"an array is named {WEIGHT!r}; expected another name")
        for array in arrays.values():
            # Of the view alone; an array of the caller's stays as it was.
            array.flags.writeable = False
        object.__setattr__(self, "arrays", arrays)

    @property
    def images(self) -> np.ndarray:
        """The array ``"image"``."""
        return self.arrays["image"]

    @property
    def labels(self) -> np.ndarray:
        """The array ``"label"``."""
        return self.arrays["label"]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def first(self, count: int) -> Split:
        """The first examples, at most so many."""
        return Split.of({name: array[:count] for name, array in self.arrays.items()})

    def replace(self, **arrays: np.ndarray) -> Split:
        """The same split with other arrays under some names."""
        return Split.of({**self.arrays, **arrays})


class ExampleSource(Protocol):
    """Examples that are read one by one while training, from wherever they are.

    With workers that decode, it is pickled. Where its examples hold an ``"image"`` that is to be
    centred or standardised, it has the attributes ``channel_mean`` and ``channel_deviation`` of
    `StreamedSplit` too. Where not all examples have the same shapes, it chooses those of each batch
    itself, by a method ``example(step, row, *, batch_size, seed)``, and gives the number of batches
    of an evaluation by ``num_batches(batch_size)``.
    """

    @property
    def size(self) -> int:
        """Number of examples."""
        ...

    def read(self, number: int, generator: np.random.Generator | None) -> dict[str, np.ndarray]:
        """One example by name, the same shapes for all.

        Args:
            number: of the example, from 0.
            generator: for random changes to it; None in evaluation.
        """
        ...

    def first(self, count: int) -> Self:
        """The first examples, at most so many."""
        ...


@dataclass(frozen=True)
class StreamedSplit:
    """One split of labelled photographs on disk, read while training; see `streams`.

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

    def first(self, count: int) -> StreamedSplit:
        """The first examples, at most so many."""
        return replace(self, count=min(count, self.count))


@dataclass(frozen=True)
class Dataset:
    """Loaded data set.

    Attributes:
        name: name in the catalogue.
        source: ``"tfds"``, ``"files"`` or ``"embedded"``.
        location: where it was read from, for people.
        num_classes: number of classes; 0 without labels.
        class_names: names of the classes, by label.
        train: training split; None if it was not requested.
        test: test split; None if it was not requested.
        fingerprint: sha256, hex, of the loaded splits; see `fingerprint`.
        complete: whether every loaded split has the official number of examples.
        streams: `StreamedSplit` or `ExampleSource` by the name of the split, for a set that is read
            while training; `train` and `test` are then None.
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
    streams: Mapping[str, Any] = field(default_factory=dict)

    def count(self, name: str) -> int:
        """Returns the number of examples of ``"train"`` or ``"test"``, in memory or streamed."""
        split = self.streams.get(name) or getattr(self, name)
        if split is None:
            return 0
        return len(split) if isinstance(split, Split) else split.size


def divided(dataset: Dataset, *, every: int = 10) -> Dataset:
    """Divides a set that has test images only: one in ten stays, the others become training images.

    Args:
        dataset: set in memory without a training split.
        every: of so many images in stored order, the first one stays.
    """
    assert dataset.test is not None
    stays = np.arange(len(dataset.test)) % every == 0
    parts = {
        name: dataset.test.replace(
            **{key: array[rows] for key, array in dataset.test.arrays.items()}
        )
        for name, rows in (("train", ~stays), ("test", stays))
    }
    return replace(
        dataset, **parts, complete=False, location=f"{dataset.location} (its test part, divided)"
    )


def digest(split: Split) -> str:
    """Computes a digest of a split that does not depend on its storage format.

    The order of the examples is ignored, because TFDS's own builders shuffle them on disk.

    Args:
        split: images uint8[N, H, W, C] and labels int32[N], or any other arrays.

    Returns:
        sha256, hex, of the shape of the images and of the sorted sha256 sums of label and pixels of
        each example; of all arrays, their names, types and shapes where there are others.
    """
    arrays = dict(split.arrays)
    if set(arrays) == {"image", "label"}:
        header = repr(tuple(map(int, split.images.shape)))
        arrays = {"label": split.labels.astype("<i4"), "image": split.images}
    else:
        arrays = dict(sorted(arrays.items()))
        header = repr([(name, array.dtype.str, array.shape) for name, array in arrays.items()])
    columns = [
        np.ascontiguousarray(array).view(np.uint8).reshape(len(split), -1)
        for array in arrays.values()
    ]
    sums = sorted(hashlib.sha256(row).digest() for row in np.concatenate(columns, axis=1))
    total = hashlib.sha256(header.encode())
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
