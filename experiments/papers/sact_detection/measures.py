"""Measures of a trained detector: average precision, FLOPs, ponder cost in boxes, time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from adaptive_nets.data.boxes import BoxSource, detection_batches, ground_truth
from adaptive_nets.data.splits import WEIGHT
from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.detection import (
    FasterRCNN,
    average_precision,
    create_detector,
    detections,
    feature_cost,
    flatten_detections,
    image_ponder_map,
    ponder_contrast,
)
from adaptive_nets.detection.stored import StoredDetector
from adaptive_nets.models.adaptive.forms import plain_form
from adaptive_nets.models.adaptive.weights import is_head
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.sact_detection.fields import DetectorConfig
from experiments.suite.experiment import Metric

PICTURED = 4
"""Number of test images in a record."""
_PER_CLASS = 20
_LONGER_SIDE = 128
_FOUND = 30


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measurement of a test set of N images.

    Attributes:
        precision: result of `average_precision`.
        flops: int64[N], FLOPs of the feature extractor.
        plain_flops: int64[N], FLOPs of the reference backbone on the same images and regions.
        inside: float[N], ponder cost inside boxes; empty for a backbone of fixed depth.
        outside: float[N], ponder cost outside of them.
        ponder: float[N], mean ponder cost of a pixel.
        arrays: pictures of the record.
    """

    precision: Mapping[str, Any]
    flops: np.ndarray
    plain_flops: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    ponder: np.ndarray
    arrays: dict[str, np.ndarray]


def measure(
    stored: StoredDetector,
    source: BoxSource,
    config: DetectorConfig,
    *,
    batch_size: int,
    options: StreamOptions,
    progress: ProgressReporter,
    title: str,
) -> Measured:
    """Runs a detector on a test set.

    Args:
        stored: trained detector.
        source: the test set.
        config: thresholds of detections, and the reference of FLOPs.
        batch_size: images at a time.
        options: workers and threads of the reader.
        progress: reporter of progress.
        title: title of the progress bar.
    """
    detector = stored.detector
    apply: Callable[..., Any] = detector.apply
    adaptive = hasattr(detector.network, "execution")
    reference = reference_detector(detector, config)
    found: list[dict[str, np.ndarray]] = []
    columns: dict[str, list[np.ndarray]] = {}
    pictures = _Pictures(stored.detector.num_classes)

    @jax.jit
    def forward(variables: Any, batch: Any) -> Any:
        output = apply(variables, {name: batch[name] for name in ("image", "size")})
        boxes = detections(output, score_threshold=config.score_threshold, limit=config.limit)
        if not adaptive:
            return output, boxes, None, None
        maps = image_ponder_map(output)
        is_box = (batch["labels"] >= 0) & ~batch["crowd"]
        return output, boxes, maps, ponder_contrast(maps, batch["boxes"], is_box, batch["size"])

    done = 0
    progress.start(f"{title}: test images", done=0, total=source.size, unit="images")
    for rows in detection_batches(source, batch_size=batch_size, options=options):
        batch = {**rows, "image": stored.normalise(rows["image"])}
        output, boxes, maps, contrast = jax.device_get(forward(stored.variables, batch))
        weight, real = rows[WEIGHT], rows[WEIGHT] > 0
        found.append(
            flatten_detections(
                rows["image_id"], boxes.boxes, boxes.scores, boxes.labels,
                scale=rows["scale"], weight=weight,
            )
        )  # fmt: skip
        cost = feature_cost(detector, output)
        plain_flops = cost.plain_flops
        if reference is not None:
            plain = dataclasses.replace(output, blocks=())
            plain_flops = feature_cost(reference, plain).flops
        values = {"flops": cost.flops, "plain_flops": plain_flops}
        if contrast is not None:
            sizes = rows["size"].prod(axis=1)
            values |= {"inside": contrast.inside, "outside": contrast.outside,
                       "ponder": maps.sum(axis=(1, 2)) / sizes}  # fmt: skip
        for name, column in values.items():
            columns.setdefault(name, []).append(np.asarray(column)[real])
        pictures.add(rows, boxes, maps)
        done += int(real.sum())
        progress.update(done)
    progress.finish()
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    none = np.zeros(0)
    return Measured(
        average_precision(
            {name: np.concatenate([part[name] for part in found]) for name in found[0]},
            ground_truth(source.images),
            num_classes=detector.num_classes,
            image_ids=[image.number for image in source.images],
            max_detections=config.limit,
        ),
        joined["flops"],
        joined["plain_flops"],
        joined.get("inside", none),
        joined.get("outside", none),
        joined.get("ponder", none),
        pictures.arrays(),
    )


def reference_detector(detector: FasterRCNN, config: DetectorConfig) -> FasterRCNN | None:
    """Returns the detector, without variables, whose feature extractor has 100 % of the FLOPs.

    Returns:
        None for the plain form of the detector's own backbone.

    Raises:
        UserError: there is no such backbone.
    """
    if not config.reference:
        return None
    return create_detector(
        config.reference, num_classes=detector.num_classes, settings=detector.settings
    )


def metrics_of(measured: Measured, class_names: tuple[str, ...]) -> dict[str, Metric]:
    """Returns the metrics of a record; a measure without a value says why.

    Args:
        measured: measurement of the test set.
        class_names: names of the classes by label; many classes have no metric of their own.
    """
    precision, count = measured.precision, measured.flops.size
    metrics = {
        "ap": _percent(precision["ap"], count, "mean over IoU 0.5 to 0.95 and over classes"),
        "ap50": _percent(precision["ap50"], count, "at IoU 0.5"),
        "ap75": _percent(precision["ap75"], count, "at IoU 0.75"),
        **{
            f"ap_{size}": _percent(precision[f"ap_{size}"], count, f"of {size} objects")
            for size in ("small", "medium", "large")
        },
        "recall": _percent(precision["recall"], count, "mean over IoU 0.5 to 0.95"),
        "objects": Metric(float(precision["objects"]), "objects", count, "in the test images"),
        "detections": Metric(
            float(precision["detections"]) / max(count, 1),
            "per image",
            count,
            "above the threshold",
        ),
    }
    if len(class_names) <= _PER_CLASS:
        for label, name in enumerate(class_names):
            for kind in ("ap", "ap50"):
                value = float(precision[f"{kind}_per_class"][label])
                metrics[f"{kind}.{name}"] = _percent(value, count, f"of {name}")
    shares = 100 * measured.flops / measured.plain_flops
    metrics |= {
        "flops": Metric(
            float(measured.flops.mean()), "FLOPs", count, "of the feature extractor, per image"
        ),
        "flops_std": Metric(float(measured.flops.std()), "FLOPs", count, "over images"),
        "flops_share": Metric(float(shares.mean()), "%", count, "of the reference backbone"),
        "flops_share_std": Metric(float(shares.std()), "%", count, "over images"),
    }
    return metrics | _ponder_metrics(measured)


def _ponder_metrics(measured: Measured) -> dict[str, Metric]:
    """Returns the ponder cost inside and outside of boxes; empty for a fixed depth."""
    if not measured.inside.size:
        return {}
    both = np.isfinite(measured.inside) & np.isfinite(measured.outside)
    inside, outside = measured.inside[both], measured.outside[both]
    count = int(both.sum())
    mean = measured.ponder.mean()
    metrics = {
        "ponder": Metric(float(mean), "units", measured.ponder.size, "per pixel, shared blocks")
    }
    if not count:
        return metrics
    ratio = inside / outside
    error = ratio.std(ddof=1) / math.sqrt(count) if count > 1 else 0.0
    return metrics | {
        "ponder_inside": Metric(float(inside.mean()), "units", count, "per pixel in a box"),
        "ponder_outside": Metric(float(outside.mean()), "units", count, "per pixel in no box"),
        "ponder_ratio": Metric(
            float(ratio.mean()), "x", count, "cost inside boxes over outside, mean over images"
        ),
        "ponder_ratio_error": Metric(float(error), "x", count, "standard error over images"),
        "ponder_higher": Metric(
            100 * float(np.mean(ratio > 1)), "%", count, "images with a higher cost inside boxes"
        ),
    }


def speed_metrics(
    stored: StoredDetector, source: BoxSource, *, batch_size: int, batches: int
) -> dict[str, Metric]:
    """Times the detector: its dense form, and for adaptive depth the skipping and the plain one.

    The forms take turns, so that other work on the machine slows all of them.

    Args:
        stored: trained detector.
        source: images of one batch, which is repeated.
        batch_size: images at a time.
        batches: batches of each form; 0 for no timing.
    """
    if not batches:
        return {}
    rows = next(detection_batches(source, batch_size=batch_size, batches=1))
    batch = jax.device_put({"image": stored.normalise(rows["image"]), "size": rows["size"]})
    forms = dict(_forms(stored))
    for run in forms.values():
        run(batch)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(batches):
        for name, run in forms.items():
            began = time.perf_counter()
            run(batch)
            seconds[name].append(time.perf_counter() - began)
    rates = {name: batch_size / float(np.median(values)) for name, values in seconds.items()}
    count = batch_size * batches
    metrics = {
        f"speed.{name}": Metric(rate, "images/s", count, f"{name} form, median of batches")
        for name, rate in rates.items()
    }
    for name in ("dense", "skipping"):
        if "plain" in rates and name in rates:
            metrics[f"speed_share.{name}"] = Metric(
                rates[name] / rates["plain"], "x", count, "images per second over the plain form's"
            )
    return metrics


def _forms(stored: StoredDetector) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yields the forms of a detector: name, and a function of a batch that waits for the result."""
    detector, variables = stored.detector, stored.variables

    def runner(detector: FasterRCNN, variables: Any, execution: Any) -> Callable[[Any], Any]:
        apply: Callable[..., Any] = detector.apply
        run = jax.jit(lambda v, b: detections(apply(v, b, execution=execution)))
        placed = jax.device_put(variables)
        return lambda batch: jax.block_until_ready(run(placed, batch))

    yield "dense", runner(detector, variables, "dense")
    if hasattr(detector.network, "execution"):
        yield "skipping", runner(detector, detector.fold(variables), "skipping")
        plain = create_detector(
            plain_form(detector.backbone),
            num_classes=detector.num_classes,
            settings=detector.settings,
        )
        yield "plain", runner(plain, without_heads(variables), "dense")


def without_heads(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables of a detector without the halting heads of its backbone."""
    return {
        kind: {
            name: {n: t for n, t in tree.items() if not is_head(n)} if name == "network" else tree
            for name, tree in trees.items()
        }
        for kind, trees in variables.items()
    }


class _Pictures:
    """Collects the first images of one shape for the figures, reduced.

    Args:
        num_classes: classes of the detector.
    """

    def __init__(self, num_classes: int):
        self._num_classes = num_classes
        self._columns: dict[str, list[np.ndarray]] = {}
        self._shape: tuple[int, ...] | None = None

    def add(self, rows: Mapping[str, np.ndarray], boxes: Any, maps: np.ndarray | None) -> None:
        """Adds the images of a batch that are of the first one's size."""
        for i in np.flatnonzero(rows[WEIGHT] > 0):
            size = tuple(int(side) for side in rows["size"][i])
            self._shape = self._shape or size
            if size != self._shape or len(self._columns.get("pictures", ())) >= PICTURED:
                continue
            self._add_one(rows, boxes, maps, int(i), (size[0], size[1]))

    def _add_one(
        self, rows: Mapping[str, np.ndarray], boxes: Any, maps: np.ndarray | None, i: int,
        size: tuple[int, int],
    ) -> None:  # fmt: skip
        from adaptive_nets.data.pictures import fitted_size, resize_picture
        from adaptive_nets.saliency import resized

        height, width = size
        small = fitted_size(size, min(_LONGER_SIDE, max(size)))
        scale = np.array([small[0] / height, small[1] / width] * 2, np.float32)
        count = min(_FOUND, boxes.labels.shape[1])
        values = {
            "pictures": resize_picture(rows["image"][i, :height, :width], small),
            "found.boxes": boxes.boxes[i, :count] * scale,
            "found.scores": boxes.scores[i, :count],
            "found.labels": boxes.labels[i, :count],
            "true.boxes": rows["boxes"][i] * scale,
            "true.labels": rows["labels"][i],
        }
        if maps is not None:
            values["ponder"] = resized(maps[i, :height, :width], small).astype(np.float16)
        for name, value in values.items():
            self._columns.setdefault(name, []).append(np.asarray(value))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays of the record."""
        return {name: np.stack(values) for name, values in self._columns.items()}


def _percent(value: float, count: int, note: str) -> Metric:
    if math.isfinite(value):
        return Metric(100 * float(value), "%", count, note)
    return Metric(None, "%", count, f"{note}; undefined, there is no such object")
