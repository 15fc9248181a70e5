"""Average precision of detections, as COCO's own code (`pycocotools`) computes it."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from adaptive_nets.runtime.errors import UserError

SIZES = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Ranges of areas, pixels, as COCO defines them."""
_EVERY = (0.0, 1e10)
_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def average_precision(
    detections: Mapping[str, Any],
    truth: Mapping[str, Any],
    *,
    num_classes: int,
    image_ids: Sequence[int] | np.ndarray | None = None,
    max_detections: int = 100,
) -> dict[str, Any]:
    """Computes COCO's average precision (lin2014), interpolated at 101 recalls.

    Sizes are those of the photographs, so detections in resized images are divided by their scale
    first. A detection that matches an ignore region (``crowd``), and no object, is not counted.
    With such a region the overlap is the intersection over the area of the detection.

    Args:
        detections: ``image_ids`` i[D], ``boxes`` f[D, 4] as (y1, x1, y2, x2) in pixels, ``scores``
            f[D], ``labels`` i[D].
        truth: ``image_ids`` i[T], ``boxes`` f[T, 4], ``labels`` i[T], and optionally ``crowd``
            bool[T] (default: none) and ``area`` f[T], pixels, by which objects are sorted into
            sizes (default: of the boxes); see `adaptive_nets.data.boxes.ground_truth`.
        num_classes: number of classes C; labels are 0 to C - 1.
        image_ids: images that are evaluated; those with a detection or an object if None.
        max_detections: detections of an image and class that count, those of the highest scores.

    Returns:
        ``"ap"`` (mean over IoU 0.5, 0.55, …, 0.95 and over classes), ``"ap50"``, ``"ap75"``,
        ``"ap_small"``, ``"ap_medium"``, ``"ap_large"``, ``"recall"`` (the mean highest recall with
        `max_detections`, COCO's AR), all in [0, 1]; ``"ap_per_class"`` and ``"ap50_per_class"``,
        float64[C]; ``"images"``, ``"objects"`` and ``"detections"``, the numbers of each. A class
        without an object has NaN and is left out of the means; without any, they are NaN.

    Raises:
        UserError: `pycocotools` is not installed.
        ValueError: arrays do not fit each other, a label or image is unknown, a box has a negative
            area, or a number is not finite.
    """
    found = _arrays(detections, "detections", ("boxes", "scores"), num_classes)
    objects = _arrays(truth, "truth", ("boxes",), num_classes)
    numbers = np.unique(np.concatenate([found["image_ids"], objects["image_ids"]]))
    if image_ids is not None:
        given = np.unique(np.asarray(image_ids).astype(np.int64))
        for name, arrays in (("detections", found), ("truth", objects)):
            strange = np.setdiff1d(arrays["image_ids"], given)
            if strange.size:
                raise ValueError(
                    f"{name} have the image {strange[0]}, which is not in image_ids; expected one "
                    f"of its {given.size}"
                )
        numbers = given
    if max_detections < 1:
        raise ValueError(f"max_detections is {max_detections}; expected at least 1")
    crowd = _flags(truth, len(objects["labels"]))
    area = _areas(truth, objects["boxes"])
    counts = {
        "images": int(numbers.size),
        "objects": int((~crowd).sum()),
        "detections": len(found["labels"]),
    }
    precision, recall = _evaluate(
        _dataset(found, num_classes, numbers, score=found["scores"]),
        _dataset(objects, num_classes, numbers, crowd=crowd, area=area),
        max_detections,
    )
    values = {
        "ap": _mean(precision[..., 0]),
        "ap50": _mean(precision[0, ..., 0]),
        "ap75": _mean(precision[5, ..., 0]),
        **{f"ap_{name}": _mean(precision[..., 1 + n]) for n, name in enumerate(SIZES)},
        "recall": _mean(recall[..., 0]),
    }
    return {
        **values,
        "ap_per_class": np.array([_mean(precision[:, :, k, 0]) for k in range(num_classes)]),
        "ap50_per_class": np.array([_mean(precision[0, :, k, 0]) for k in range(num_classes)]),
        **counts,
    }


def flatten_detections(
    image_ids: Any,
    boxes: Any,
    scores: Any,
    labels: Any,
    *,
    scale: Any = None,
    weight: Any = None,
) -> dict[str, np.ndarray]:
    """Collects the detections of batches as `average_precision` takes them.

    Args:
        image_ids: i[N].
        boxes: f[N, D, 4], (y1, x1, y2, x2), pixels of the resized images.
        scores: f[N, D].
        labels: i[N, D]; -1 in empty slots, which are left out.
        scale: f[N], resized / original pixels, by which boxes are divided; 1 if None.
        weight: f[N], 0 for images that pad a batch, which are left out; 1 if None.

    Returns:
        ``image_ids`` int64[K], ``boxes`` float64[K, 4], ``scores`` float64[K], ``labels`` int64[K].

    Raises:
        ValueError: arrays do not fit each other.
    """
    labels = np.asarray(labels).astype(np.int64)
    if labels.ndim != 2:
        raise ValueError(f"labels have the shape {labels.shape}; expected [N, D]")
    count = (len(labels),)
    arrays = {
        "image_ids": (np.asarray(image_ids).astype(np.int64), count),
        "boxes": (np.asarray(boxes, np.float64), (*labels.shape, 4)),
        "scores": (np.asarray(scores, np.float64), labels.shape),
        "scale": (np.ones(count) if scale is None else np.asarray(scale, np.float64), count),
        "weight": (np.ones(count) if weight is None else np.asarray(weight), count),
    }
    for name, (array, shape) in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name} have the shape {array.shape}; expected {shape}")
    kept = (labels >= 0) & (arrays["weight"][0] > 0)[:, None]
    original = arrays["boxes"][0] / arrays["scale"][0][:, None, None]
    return {
        "image_ids": np.broadcast_to(arrays["image_ids"][0][:, None], labels.shape)[kept],
        "boxes": original[kept],
        "scores": arrays["scores"][0][kept],
        "labels": labels[kept],
    }


def _arrays(
    given: Mapping[str, Any], what: str, numbers: Sequence[str], num_classes: int
) -> dict[str, np.ndarray]:
    """Returns the checked arrays of detections or of the ground truth."""
    arrays: dict[str, np.ndarray] = {}
    for name in ("image_ids", "labels", *numbers):
        if name not in given:
            raise ValueError(f"{what} lack {name!r}; expected image_ids, labels, {numbers}")
        array = np.asarray(given[name])
        whole = name not in numbers
        arrays[name] = array.astype(np.int64 if whole else np.float64)
        if array.size and whole and not np.array_equal(arrays[name], array):
            raise ValueError(f"{name} of {what} are not integers")
    count = arrays["image_ids"].shape[0] if arrays["image_ids"].ndim else -1
    for name, array in arrays.items():
        expected = (count, 4) if name == "boxes" else (count,)
        if array.size == 0 and count == 0:
            arrays[name] = array.reshape(expected)
        elif array.shape != expected:
            raise ValueError(f"{name} of {what} have the shape {array.shape}; expected {expected}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} of {what} hold NaN or an infinity; expected finite numbers")
    labels, boxes = arrays["labels"], arrays["boxes"]
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"labels of {what} are {labels.min()} to {labels.max()}; expected 0 to "
            f"{num_classes - 1}"
        )
    negative = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if negative.size:
        raise ValueError(
            f"box {negative[0]} of {what} is {boxes[negative[0]].tolist()}, of negative area; "
            "expected y1 <= y2 and x1 <= x2"
        )
    return arrays


def _flags(truth: Mapping[str, Any], count: int) -> np.ndarray:
    crowd = np.asarray(truth.get("crowd", np.zeros(count, bool))).astype(bool)
    if crowd.shape != (count,) and (count or crowd.size):
        raise ValueError(f"crowd of truth has the shape {crowd.shape}; expected {(count,)}")
    return crowd.reshape(count)


def _areas(truth: Mapping[str, Any], boxes: np.ndarray) -> np.ndarray:
    sides = boxes[:, 2:] - boxes[:, :2]
    area = np.asarray(truth.get("area", sides.prod(axis=1)), np.float64)
    if area.shape != (len(boxes),) and (len(boxes) or area.size):
        raise ValueError(f"area of truth has the shape {area.shape}; expected {(len(boxes),)}")
    return area.reshape(len(boxes))


def _dataset(
    arrays: Mapping[str, np.ndarray],
    num_classes: int,
    numbers: np.ndarray,
    *,
    score: np.ndarray | None = None,
    crowd: np.ndarray | None = None,
    area: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns COCO's dictionary of annotations."""
    boxes = arrays["boxes"]
    corners, sides = boxes[:, 1::-1], (boxes[:, 2:] - boxes[:, :2])[:, ::-1]
    rows = np.concatenate([corners, sides], axis=1).tolist()
    areas = (sides.prod(axis=1) if area is None else area).tolist()
    crowds = [0] * len(rows) if crowd is None else crowd.astype(int).tolist()
    scores = [0.0] * len(rows) if score is None else score.tolist()
    ids, labels = arrays["image_ids"].tolist(), arrays["labels"].tolist()
    annotations = [
        {
            "id": n + 1,  # 0 stands for no match.
            "image_id": ids[n],
            "category_id": labels[n],
            "bbox": rows[n],
            "area": areas[n],
            "iscrowd": crowds[n],
            "score": scores[n],
        }
        for n in range(len(rows))
    ]
    return {
        "images": [{"id": number} for number in numbers.tolist()],
        "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
        "annotations": annotations,
    }


def _evaluate(
    found: dict[str, Any], truth: dict[str, Any], limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision f64[10, 101, C, 4] and recall f64[10, C, 4]; -1 without objects."""
    # The library writes its progress to the standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        coco, evaluation = _library("coco"), _library("cocoeval")
        sets = []
        for dataset in (truth, found):
            index = coco.COCO()
            index.dataset = dataset
            index.createIndex()
            sets.append(index)
        judge = evaluation.COCOeval(*sets, iouType="bbox")
        judge.params.iouThrs = _THRESHOLDS
        judge.params.maxDets = [limit]
        judge.params.areaRng = [list(bounds) for bounds in (_EVERY, *SIZES.values())]
        judge.params.areaRngLbl = ["all", *SIZES]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][..., 0], judge.eval["recall"][..., 0]


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"pycocotools.{name}")
    except ImportError as error:
        raise UserError(
            "average precision needs pycocotools, which is not installed; "
            "run `pip install 'adaptive-nets[detection]'`"
        ) from error


def _mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are defined, in [0, 1]; NaN without any."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")
