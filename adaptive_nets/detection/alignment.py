"""Region-of-interest alignment: bilinear samples of a map inside boxes [he2017, section 3]."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adaptive_nets.detection.arguments import as_boxes, as_float, as_pair
from adaptive_nets.halting.arguments import as_array, check_number, check_positive_integer
from adaptive_nets.runtime.errors import UserError


class _Taps(NamedTuple):
    """Two neighbours of each sample along one axis.

    Attributes:
        indices: int32[2, R, S].
        weights: float[2, R, S]; both 0 for a sample outside of the map.
    """

    indices: Int[Array, "2 R S"]
    weights: Float[Array, "2 R S"]


def roi_align(
    features: Float[Array, "H W C"],
    boxes: Float[Array, "R 4"],
    *,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool = True,
) -> Float[Array, "R h w C"]:
    """Averages bilinear samples of a map in h x w equal bins of each box [he2017].

    Convention: the value of position (i, j) lies at its centre, (i + ½, j + ½), so a box (y1, …) is
    moved by −½ after scaling: ``aligned=True`` of torchvision and Detectron2. With
    ``aligned=False``, as in the first implementations, values lie at (i, j) and sides are at least
    1 position long. A sample up to one position outside of the map takes the value at the border; a
    sample further outside is 0.

    Args:
        features: float[H, W, C], one map; use `jax.vmap` for a batch.
        boxes: float[R, 4], (y1, x1, y2, x2) in pixels of the image; R may be 0. A box of zero area
            is sampled along its line or at its point.
        output_size: (h, w), or one number for both.
        spatial_scale: positions of the map per pixel, such as 1/16.
        sampling_ratio: samples per bin along each axis. Values below 1, a number adapted to the
            size of each box elsewhere, are refused: shapes must be static.
        aligned: whether values lie at the centres of positions.

    Returns:
        float[R, h, w, C] in the dtype of the features, float32 for integers; differentiable in
        features and boxes.

    Raises:
        UserError: an argument has another shape or is outside its range.
    """
    features = as_array("features", features, ndim=3, axes="[H, W, C]")
    if 0 in features.shape[:2]:
        raise UserError(f"features has shape {features.shape}; expected at least one position")
    values = as_float("features", features)
    dtype = features.dtype if jnp.issubdtype(features.dtype, jnp.floating) else values.dtype
    boxes = as_boxes("boxes", boxes)
    rows, columns = as_pair("output_size", output_size)
    check_number("spatial_scale", spatial_scale)
    if isinstance(sampling_ratio, int) and sampling_ratio < 1:
        raise UserError(
            f"sampling_ratio is {sampling_ratio}; expected a positive integer: a number adapted to "
            "each box has no static shape"
        )
    samples = check_positive_integer("sampling_ratio", sampling_ratio)
    found = _aligned(values, boxes, spatial_scale, (rows, columns), samples, aligned)
    return found.astype(dtype)


# Compiled as one program: called outside of `jit`, dozens of operations would compile one by one.
@functools.partial(jax.jit, inline=True, static_argnums=(3, 4, 5))
def _aligned(
    features: Array, boxes: Array, scale: Array, size: tuple[int, int], samples: int, aligned: bool
) -> Float[Array, "R h w C"]:
    height, width, channels = features.shape
    rows, columns = size
    corners = boxes * scale - (0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sides = jnp.maximum(sides, 1.0)
    vertical = _taps(corners[:, 0], sides[:, 0], rows * samples, height)
    horizontal = _taps(corners[:, 1], sides[:, 1], columns * samples, width)
    flat = features.reshape(height * width, channels)
    total = jnp.zeros((boxes.shape[0], rows * samples, columns * samples, channels), features.dtype)
    for i in range(2):
        for j in range(2):
            index = vertical.indices[i, :, :, None] * width + horizontal.indices[j, :, None, :]
            weight = vertical.weights[i, :, :, None] * horizontal.weights[j, :, None, :]
            total = total + weight[..., None].astype(features.dtype) * flat[index]
    bins = total.reshape(-1, rows, samples, columns, samples, channels)
    return jnp.mean(bins, axis=(2, 4))


def _taps(start: Array, side: Array, count: int, size: int) -> _Taps:
    """Returns the neighbours of `count` samples at the centres of equal parts of each side."""
    parts = (jnp.arange(count, dtype=start.dtype) + 0.5) / count
    positions = start[:, None] + side[:, None] * parts[None]
    inside = (positions >= -1.0) & (positions <= size)
    # A sample outside may be infinite or NaN.
    positions = jnp.clip(jnp.where(inside, positions, 0.0), 0.0, size - 1.0)
    low = jnp.floor(positions)
    share = positions - low
    lower = low.astype(jnp.int32)
    upper = jnp.minimum(lower + 1, size - 1)
    weights = jnp.stack([1.0 - share, share]) * inside[None]
    return _Taps(jnp.stack([lower, upper]), weights)
