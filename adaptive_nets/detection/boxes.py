"""Boxes (y1, x1, y2, x2) in pixels: area, overlap, clipping and regression targets.

Coordinates are continuous: pixel (i, j) covers [i, i + 1] x [j, j + 1], and a box is y2 − y1 high.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adaptive_nets.detection.arguments import as_boxes

LARGEST_LOG_SCALE = math.log(1000 / 16)
"""Largest logarithm of a ratio of sizes that `decode` applies."""


def area(boxes: Float[Array, "R 4"]) -> Float[Array, "R"]:
    """Computes the areas of boxes, float32[R] in square pixels.

    A box with a side of zero or negative length has area 0.

    Raises:
        UserError: the boxes are not [R, 4].
    """
    boxes = as_boxes("boxes", boxes)
    sides = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]


def intersection(a: Float[Array, "A 4"], b: Float[Array, "B 4"]) -> Float[Array, "A B"]:
    """Computes the area of the intersection of every pair of boxes, in square pixels.

    Args:
        a: float[A, 4].
        b: float[B, 4].

    Returns:
        float32[A, B]; 0 for a box of zero or negative area.

    Raises:
        UserError: boxes are not [R, 4].
    """
    a, b = as_boxes("a", a), as_boxes("b", b)
    start = jnp.maximum(a[:, None, :2], b[None, :, :2])
    end = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = jnp.maximum(end - start, 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Float[Array, "A 4"], b: Float[Array, "B 4"]) -> Float[Array, "A B"]:
    """Computes intersection over union of every pair of boxes.

        iou([[0, 0, 2, 2]], [[0, 0, 2, 1], [5, 5, 6, 6]])  # [[0.5, 0.0]]

    Args:
        a: float[A, 4], boxes (y1, x1, y2, x2); A may be 0.
        b: float[B, 4]; B may be 0.

    Returns:
        float32[A, B], from 0 to 1. A box of zero or negative area has IoU 0 with every box, itself
        included.

    Raises:
        UserError: boxes are not [R, 4].
    """
    return _iou(as_boxes("a", a), as_boxes("b", b))


# Compiled as one program when it is called outside of `jit`.
@functools.partial(jax.jit, inline=True)
def _iou(a: Array, b: Array) -> Float[Array, "A B"]:
    common = intersection(a, b)
    union = area(a)[:, None] + area(b)[None] - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1.0), 0.0)


def covered_share(boxes: Float[Array, "R 4"], regions: Float[Array, "S 4"]) -> Float[Array, "R S"]:
    """Computes the share of each box that each region covers: intersection over the box's area.

    Args:
        boxes: float[R, 4].
        regions: float[S, 4].

    Returns:
        float32[R, S]; 0 for a box of zero or negative area.

    Raises:
        UserError: boxes are not [R, 4].
    """
    own = area(boxes)[:, None]
    common = intersection(boxes, regions)
    return jnp.where(own > 0, common / jnp.where(own > 0, own, 1.0), 0.0)


def clip(boxes: Float[Array, "R 4"], size: Int[Array, "2"]) -> Float[Array, "R 4"]:
    """Clips boxes to an image of (height, width) pixels.

    Args:
        boxes: float[R, 4].
        size: (height, width), may be traced.

    Returns:
        float32[R, 4]; a box outside the image becomes one of zero area at its border.

    Raises:
        UserError: the boxes are not [R, 4].
    """
    boxes = as_boxes("boxes", boxes)
    limits = jnp.tile(jnp.asarray(size).astype(boxes.dtype), 2)
    return jnp.clip(boxes, 0.0, limits[None])


def _centres_and_sides(boxes: Array) -> tuple[Array, Array]:
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * sides, sides


def encode(
    boxes: Float[Array, "R 4"],
    anchors: Float[Array, "R 4"],
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "R 4"]:
    """Computes the regression targets of boxes relative to anchors [ren2015, equation 2].

    With centre y, x and sides h, w of the box, and the same of the anchor with index a:
    ((y − y_a)/h_a, (x − x_a)/w_a, log(h/h_a), log(w/w_a)), times the weights.

    Args:
        boxes: float[R, 4].
        anchors: float[R, 4].
        weights: factor of each of the four targets.

    Returns:
        float32[R, 4]; finite for degenerate boxes too, whose sides count as one millionth.

    Raises:
        UserError: boxes or anchors are not [R, 4].
    """
    boxes, anchors = as_boxes("boxes", boxes), as_boxes("anchors", anchors)
    centre, sides = _centres_and_sides(boxes)
    anchor_centre, anchor_sides = _centres_and_sides(anchors)
    sides, anchor_sides = jnp.maximum(sides, 1e-6), jnp.maximum(anchor_sides, 1e-6)
    shift = (centre - anchor_centre) / anchor_sides
    scale = jnp.log(sides / anchor_sides)
    factors = jnp.asarray(weights, boxes.dtype)
    return jnp.concatenate([shift, scale], axis=1) * factors[None]


def decode(
    deltas: Float[Array, "R 4"],
    anchors: Float[Array, "R 4"],
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "R 4"]:
    """Computes boxes from regression targets; the inverse of `encode`.

    Args:
        deltas: float[R, 4], targets (y, x, log h, log w) relative to the anchors.
        anchors: float[R, 4].
        weights: the weights of `encode`.

    Returns:
        float32[R, 4]. A side grows at most 62.5-fold, so that no prediction overflows.

    Raises:
        UserError: deltas or anchors are not [R, 4].
    """
    deltas, anchors = as_boxes("deltas", deltas), as_boxes("anchors", anchors)
    deltas = deltas / jnp.asarray(weights, deltas.dtype)[None]
    centre, sides = _centres_and_sides(anchors)
    centre = centre + deltas[:, :2] * sides
    half = 0.5 * sides * jnp.exp(jnp.minimum(deltas[:, 2:], LARGEST_LOG_SCALE))
    return jnp.concatenate([centre - half, centre + half], axis=1)
