"""Detections of a batch of images: boxes, classes and scores of a fixed number."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.detection.arguments import check_share
from adaptive_nets.detection.boxes import clip, decode
from adaptive_nets.detection.output import DetectorOutput
from adaptive_nets.detection.suppression import nms
from adaptive_nets.detection.targets import BOX_WEIGHTS
from adaptive_nets.halting.arguments import check_positive_integer


@flax.struct.dataclass
class Detections:
    """Detections of N images, D slots each, by decreasing score.

    Attributes:
        boxes: float32[N, D, 4], (y1, x1, y2, x2) in pixels of the resized image; divide by
            ``scale`` of the batch for those of the original one. 0 in empty slots.
        scores: float32[N, D], probability of the class; 0 in empty slots.
        labels: int32[N, D], class from 0 to C − 1; −1 in empty slots.
        valid: bool[N, D], False in empty slots.
    """

    boxes: Float[Array, "N D 4"]
    scores: Float[Array, "N D"]
    labels: Int[Array, "N D"]
    valid: Bool[Array, "N D"]


def detections(
    output: DetectorOutput,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    limit: int = 100,
) -> Detections:
    """Computes the detections: decoded boxes of every class, suppressed within each class.

    Args:
        output: output of a detector with ``train=False``.
        score_threshold: least probability of a detection.
        iou_threshold: IoU above which the weaker of two boxes of a class is removed.
        limit: D, largest number of detections of an image, static.

    Raises:
        UserError: a threshold or the limit is outside its range.
    """
    check_share("score_threshold", score_threshold)
    limit = check_positive_integer("limit", limit)
    classes = output.box_deltas.shape[2]

    def of_class(boxes: Array, scores: Array, deltas: Array, size: Array) -> tuple[Array, Array]:
        boxes = clip(decode(deltas, boxes, weights=BOX_WEIGHTS), size)
        has_area = jnp.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        scores = jnp.where(has_area & (scores >= score_threshold), scores, -jnp.inf)
        kept = nms(boxes, scores, iou_threshold=iou_threshold, limit=limit)
        return boxes[kept.indices], jnp.where(kept.valid, scores[kept.indices], -jnp.inf)

    def of_image(
        regions: Array, valid: Array, logits: Array, deltas: Array, size: Array
    ) -> Detections:
        probs = jax.nn.softmax(logits, axis=-1)[:, :classes]
        probs = jnp.where(valid[:, None], probs, -jnp.inf)
        boxes, scores = jax.vmap(of_class, in_axes=(None, 1, 1, None))(regions, probs, deltas, size)
        best, indices = lax.top_k(scores.reshape(-1), limit)
        found = best > -jnp.inf
        return Detections(
            boxes=jnp.where(found[:, None], boxes.reshape(-1, 4)[indices], 0.0),
            scores=jnp.where(found, best, 0.0),
            labels=jnp.where(found, (indices // limit).astype(jnp.int32), -1),
            valid=found,
        )

    return jax.vmap(of_image)(
        output.regions, output.region_valid, output.class_logits, output.box_deltas, output.size
    )
