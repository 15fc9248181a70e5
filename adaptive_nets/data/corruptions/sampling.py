"""Linear interpolation and blur along a line, for batches of images.

Every result is computed image by image or value by value, so that it does not depend on which
images share a batch.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Border = Literal["mirror", "reflect"]
"""Extension beyond the border: ``d c b | a b c d`` (mirror) or ``c b a | a b c d`` (reflect)."""


def fold_indices(indices: np.ndarray, size: int, border: Border) -> np.ndarray:
    """Maps integer positions outside an axis to positions inside it.

    Args:
        indices: int array of any shape.
        size: length of the axis.
        border: extension beyond the border.

    Returns:
        Indices in [0, size), same shape and dtype.
    """
    if border == "mirror":
        if size == 1:
            return np.zeros_like(indices)
        folded = np.abs(indices) % (2 * size - 2)
        return np.minimum(folded, 2 * size - 2 - folded)
    folded = indices % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def sample_bilinear(
    images: np.ndarray, rows: np.ndarray, columns: np.ndarray, *, border: Border
) -> np.ndarray:
    """Samples images at fractional positions by bilinear interpolation.

    Args:
        images: float[N, H, W, C].
        rows: float[N, h, w], row of each sample.
        columns: float[N, h, w], column of each sample.
        border: extension beyond the border.

    Returns:
        float[N, h, w, C], dtype of the images.
    """
    N, H, W, C = images.shape
    flat = images.reshape(N * H * W, C)
    top, left = np.floor(rows), np.floor(columns)
    down = (rows - top).astype(images.dtype)[..., None]
    right = (columns - left).astype(images.dtype)[..., None]
    top, left = top.astype(np.int64), left.astype(np.int64)
    first = (np.arange(N) * (H * W))[:, None, None]
    lines = [first + fold_indices(top + i, H, border) * W for i in (0, 1)]
    places = [fold_indices(left + i, W, border) for i in (0, 1)]
    upper, lower = (
        flat[line + places[0]] * (1 - right) + flat[line + places[1]] * right for line in lines
    )
    return upper * (1 - down) + lower * down


def zoom_centre(images: np.ndarray, factor: float) -> np.ndarray:
    """Enlarges the centre of images to their full size by linear interpolation.

    As in the official generators: the central ceil(side / factor) pixels of each side are resized
    so that their first and last pixels become the first and last of round(factor times as many),
    of which the centre is kept.

    Args:
        images: float[N, H, W, C].
        factor: zoom factor, at least 1.

    Returns:
        float[N, H, W, C], dtype of the images.
    """
    for axis in (1, 2):
        low, share = _zoom_positions(images.shape[axis], factor)
        if not share.any():
            images = images.take(low, axis)
            continue
        shape = [1] * images.ndim
        shape[axis] = -1
        share = share.astype(images.dtype).reshape(shape)
        high = np.minimum(low + 1, images.shape[axis] - 1)
        images = images.take(low, axis) * (1 - share) + images.take(high, axis) * share
    return images


def _zoom_positions(size: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each kept position, the pixel before it and the distance to that pixel."""
    cropped = math.ceil(size / factor)
    enlarged = round(cropped * factor)
    start, trim = (size - cropped) // 2, (enlarged - size) // 2
    step = (cropped - 1) / (enlarged - 1) if enlarged > 1 else 0.0
    positions = (trim + np.arange(size)) * step
    low = np.minimum(np.floor(positions).astype(np.int64), cropped - 1)
    return start + low, positions - low


def blur_along_lines(
    images: np.ndarray, angles: np.ndarray, *, radius: int, deviation: float
) -> np.ndarray:
    """Blurs each image along a line that starts at each pixel, as ImageMagick's motion blur does.

    Pixel p becomes the sum of k_i x[p + round(i u)] for i = 0 to 2 radius, where u is the unit
    vector of the angle, k_i is proportional to exp(-i^2 / (2 deviation^2)) and the k_i add up to 1.
    Pixels beyond the border equal the nearest one inside.

    Args:
        images: uint8[N, H, W, C].
        angles: float[N], degrees; 0 points to the right and 90 downwards.
        radius: half the length of the line, pixels.
        deviation: standard deviation of the weights along the line, pixels.

    Returns:
        uint8[N, H, W, C], rounded to the nearest.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights = (weights / weights.sum()).astype(np.float32)
    _, H, W, _ = images.shape
    reach = 2 * radius
    blurred = np.empty_like(images)
    for n, angle in enumerate(np.deg2rad(angles)):
        # Halves are rounded down, as in ImageMagick.
        rows = np.ceil(steps * np.sin(angle) - 0.5).astype(np.int64) + reach
        columns = np.ceil(steps * np.cos(angle) - 0.5).astype(np.int64) + reach
        padded = np.pad(images[n], ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        total = np.zeros(images.shape[1:], np.float32)
        for weight, row, column in zip(weights, rows, columns, strict=True):
            total += weight * padded[row : row + H, column : column + W]
        blurred[n] = np.floor(total + np.float32(0.5))
    return blurred
