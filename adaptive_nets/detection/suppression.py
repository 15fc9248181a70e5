"""Greedy non-maximum suppression with results of a fixed size."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.detection.arguments import as_boxes, as_float, check_share
from adaptive_nets.detection.boxes import iou
from adaptive_nets.halting.arguments import as_array, check_positive_integer
from adaptive_nets.runtime.errors import UserError


class Kept(NamedTuple):
    """Boxes that suppression kept, a pair (indices, valid).

    Attributes:
        indices: int32[limit], indices of the kept boxes by decreasing score; 0 where not valid.
        valid: bool[limit], True for the kept boxes, which come first.
    """

    indices: Int[Array, " limit"]
    valid: Bool[Array, " limit"]


class _Progress(NamedTuple):
    count: Int[Array, ""]
    remaining: Bool[Array, " R"]
    indices: Int[Array, " limit"]


def nms(
    boxes: Float[Array, "R 4"],
    scores: Float[Array, " R"],
    *,
    iou_threshold: float | Float[Array, ""],
    limit: int,
) -> Kept:
    """Keeps the boxes of largest score that do not overlap a kept one: greedy suppression.

    Repeatedly keeps the box of the largest score among the remaining ones, the one of the lower
    index among equals, and removes every box whose IoU with it is above the threshold. The result
    has a fixed size, so the function runs under `jit` and `vmap`.

        indices, valid = nms(boxes, scores, iou_threshold=0.5, limit=100)
        kept = boxes[indices[valid]]

    Args:
        boxes: float[R, 4], (y1, x1, y2, x2); R may be 0. A box of zero or negative area overlaps
            none, so it neither removes a box nor is removed.
        scores: float[R]; a box with score −∞ or NaN is never kept.
        iou_threshold: from 0 to 1; may be traced.
        limit: largest number of kept boxes, static.

    Returns:
        Indices int32[limit], and valid bool[limit].

    Raises:
        UserError: boxes or scores have another shape, or the threshold or the limit is outside its
            range.
    """
    boxes = as_boxes("boxes", boxes)
    scores = as_float("scores", as_array("scores", scores, ndim=1, axes="[R]"))
    if scores.shape[0] != boxes.shape[0]:
        raise UserError(
            f"scores has shape {scores.shape}; expected ({boxes.shape[0]},), one per box"
        )
    check_share("iou_threshold", iou_threshold)
    limit = check_positive_integer("limit", limit)
    indices = jnp.zeros(limit, jnp.int32)
    if not boxes.shape[0]:
        return Kept(indices, jnp.zeros(limit, jnp.bool_))
    numbers = jnp.arange(boxes.shape[0])

    def is_unfinished(progress: _Progress) -> Array:
        return (progress.count < limit) & jnp.any(progress.remaining)

    def keep_best(progress: _Progress) -> _Progress:
        # The first of equal maxima; one IoU row at a time keeps the memory linear in R.
        best = jnp.argmax(jnp.where(progress.remaining, scores, -jnp.inf)).astype(jnp.int32)
        overlapping = iou(boxes[best][None], boxes)[0] > iou_threshold
        return _Progress(
            progress.count + 1,
            progress.remaining & ~overlapping & (numbers != best),
            progress.indices.at[progress.count].set(best),
        )

    start = _Progress(jnp.int32(0), scores > -jnp.inf, indices)
    done = lax.while_loop(is_unfinished, keep_best, start)
    return Kept(done.indices, jnp.arange(limit) < done.count)
