"""Annotated photographs: boxes, classes and ignore regions, checked."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adaptive_nets.data.boxes.locations import ImageLocation
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.runtime.errors import UserError

TOLERANCE = 0.5
"""Distance, in pixels, by which rounding may carry a box out of its image."""
ZERO = "boxes of zero width or height"
"""Reason for which a box is left out."""
NEGATIVE = "has a negative area"
"""Fault of a box whose ends are in the wrong order."""


class BadAnnotationsError(DamagedDataError):
    """Some annotations are wrong.

    Attributes:
        lines: one line for each of them.
    """

    def __init__(self, lines: Sequence[str], hint: str = ""):
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        super().__init__(f"{lines[0]}{more}{hint}")
        self.lines = tuple(lines)


@dataclass(frozen=True, eq=False, slots=True)
class AnnotatedImage:
    """One photograph with its boxes, in pixels of the photograph.

    Attributes:
        number: id of the image in its set.
        file: location of the encoded photograph.
        height: height, pixels.
        width: width, pixels.
        boxes: float32[G, 4], (y1, x1, y2, x2), pixels.
        labels: int32[G], class of each box.
        crowd: bool[G], regions that are neither to be found nor wrong to find: COCO's crowds and
            VOC's difficult objects.
        area: float32[G], area of each object, pixels; COCO's is that of the segment.
    """

    number: int
    file: ImageLocation
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray

    @property
    def has_objects(self) -> bool:
        """True if there is a box outside of the ignore regions."""
        return bool(np.any(~self.crowd))


@dataclass(frozen=True)
class BoxSet:
    """Set of photographs with boxes.

    Attributes:
        name: name of the set.
        class_names: names of the classes, by label.
        splits: images by split, such as ``"train"`` and ``"val"``.
        location: folder that it was read from.
        source: ``"import"`` or ``"files"``.
        form: ``"coco"`` or ``"voc"``.
        left_out: what was left out, by reason.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[AnnotatedImage, ...]]
    location: str
    source: str
    form: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def counts(self) -> dict[str, int]:
        """Returns the number of images of each split."""
        return {name: len(images) for name, images in self.splits.items()}

    def num_boxes(self) -> int:
        """Returns the number of boxes of all splits."""
        return sum(len(image.boxes) for images in self.splits.values() for image in images)

    def class_counts(self, split: str) -> tuple[int, ...]:
        """Returns the number of boxes of each class in a split."""
        labels = [image.labels for image in self.splits[split]]
        joined = np.concatenate([np.zeros(0, np.int32), *labels])
        return tuple(np.bincount(joined, minlength=self.num_classes).tolist())

    def split(self, name: str) -> tuple[AnnotatedImage, ...]:
        """Returns the images of a split.

        Raises:
            AbsentDataError: the set has no such split.
        """
        if name not in self.splits:
            raise AbsentDataError(
                f"split {name!r} of {self.name} is not in {self.location}; expected "
                f"{' or '.join(self.splits)}"
            )
        return self.splits[name]

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256, hex, of classes, annotations and sizes of the photographs' files.

        It is the same for a set in its folder, in archives, and imported.
        """
        total = hashlib.sha256(repr(self.class_names).encode())
        for name in sorted(self.splits):
            total.update(f"{name} {len(self.splits[name])}\n".encode())
            for image in self.splits[name]:
                row = (image.number, image.file.name, image.file.size, image.height, image.width)
                total.update(repr(row).encode("utf-8", "surrogateescape"))
                for array, kind in (
                    (image.boxes, "<f4"),
                    (image.labels, "<i4"),
                    (image.crowd, "?"),
                    (image.area, "<f4"),
                ):
                    total.update(np.ascontiguousarray(array).astype(kind).tobytes())
        return total.hexdigest()


@dataclass
class Parsed:
    """Content of annotation files.

    Attributes:
        class_names: names of the classes, by label.
        splits: images by split, without what is wrong.
        problems: one line for each thing that is wrong.
        left_out: counts of what was left out without being wrong, by reason.
    """

    class_names: tuple[str, ...]
    splits: dict[str, tuple[AnnotatedImage, ...]]
    problems: list[str]
    left_out: Counter[str]


class BoxList:
    """Boxes of one image while its annotation is read.

    Args:
        height: height of the image, pixels.
        width: width of the image, pixels.
    """

    def __init__(self, height: int, width: int):
        self._size = (height, width)
        self._rows: list[tuple[float, float, float, float, int, bool, float]] = []

    def add(
        self,
        box: tuple[float, float, float, float],
        label: int,
        *,
        crowd: bool = False,
        area: float | None = None,
    ) -> str | None:
        """Adds a box, clipped to the image.

        Args:
            box: (y1, x1, y2, x2), pixels.
            label: its class.
            crowd: whether it is an ignore region.
            area: area of the object, pixels; that of the box if it is None or no size.

        Returns:
            None if it was added; else `ZERO`, or what is wrong with it.
        """
        y1, x1, y2, x2 = box
        height, width = self._size
        if not all(map(math.isfinite, box)):
            return "is not of finite numbers"
        if y2 < y1 or x2 < x1:
            return NEGATIVE
        if min(y1, x1) < -TOLERANCE or y2 > height + TOLERANCE or x2 > width + TOLERANCE:
            return "is outside the image"
        y1, y2 = (min(max(y, 0.0), height) for y in (y1, y2))
        x1, x2 = (min(max(x, 0.0), width) for x in (x1, x2))
        if y1 == y2 or x1 == x2:
            return ZERO
        of_object = area if area is not None and 0 <= area < math.inf else (y2 - y1) * (x2 - x1)
        self._rows.append((y1, x1, y2, x2, label, crowd, of_object))
        return None

    def image(self, number: int, file: ImageLocation) -> AnnotatedImage:
        """Returns the image with the boxes that were added."""
        rows = self._rows
        return AnnotatedImage(
            number,
            file,
            *self._size,
            np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[4] for row in rows], np.int32),
            np.array([row[5] for row in rows], bool),
            np.array([row[6] for row in rows], np.float32),
        )


def check_class_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns class names that are not empty and differ from each other.

    Args:
        names: names by label.
        where: where they come from, for messages.

    Raises:
        UserError: there are none, or a name is empty, not printable, or there twice.
    """
    for name in names:
        if not (name and name.isprintable() and name == name.strip()):
            raise UserError(
                f"{where}: a class is named {name!r}; expected printable characters without spaces "
                "at the ends"
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not names:
        fault = "no classes" if not names else f"the class {twice!r} twice"
        raise UserError(f"{where} has {fault}; expected different names, at least one")
    return tuple(names)


def ground_truth(images: Sequence[AnnotatedImage]) -> dict[str, np.ndarray]:
    """Collects the boxes of images as `adaptive_nets.detection.average_precision` takes them.

    Args:
        images: images of a split.

    Returns:
        ``image_ids`` int32[T], ``boxes`` float32[T, 4] (y1, x1, y2, x2) in pixels of the
        photographs, ``labels`` int32[T], ``crowd`` bool[T], ``area`` float32[T].
    """
    counts = [len(image.boxes) for image in images]
    numbers = np.array([image.number for image in images], np.int32)
    empty = BoxList(1, 1).image(0, ImageLocation("", "", 0))
    arrays = {
        name: np.concatenate([getattr(image, name) for image in (empty, *images)])
        for name in ("boxes", "labels", "crowd", "area")
    }
    return {"image_ids": np.repeat(numbers, counts), **arrays}
