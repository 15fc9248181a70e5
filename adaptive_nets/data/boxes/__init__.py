"""Photographs with boxes: COCO and Pascal VOC layouts, import, and batches for detectors."""

from typing import TYPE_CHECKING, Any

from adaptive_nets.data.boxes.annotations import (
    AnnotatedImage,
    BadAnnotationsError,
    BoxSet,
    ground_truth,
)
from adaptive_nets.data.boxes.buckets import bucket_shapes
from adaptive_nets.data.boxes.loading import load_boxes
from adaptive_nets.data.boxes.resizing import Resize
from adaptive_nets.data.boxes.stream import BoxSource, detection_batches, detection_dataset

if TYPE_CHECKING:
    from adaptive_nets.data.boxes.device_flip import flip_rows

__all__ = [
    "AnnotatedImage",
    "BadAnnotationsError",
    "BoxSet",
    "BoxSource",
    "Resize",
    "bucket_shapes",
    "detection_batches",
    "detection_dataset",
    "flip_rows",
    "ground_truth",
    "load_boxes",
]


def __getattr__(name: str) -> Any:
    """Imports `flip_rows` when it is asked for: listings of data sets need no JAX."""
    if name == "flip_rows":
        from adaptive_nets.data.boxes.device_flip import flip_rows

        return flip_rows
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
