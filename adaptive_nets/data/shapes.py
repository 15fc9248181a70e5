"""Generated images of four shapes: circle, square, star and triangle.

The set `four_shapes` of this distribution was drawn by `draw_shapes`, seed 0 for training and seed
1 for test images. It stands for the photographs of drawn shapes of [atanov2019]'s experiment.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int32, UInt8

SHAPES = ("circle", "square", "star", "triangle")
"""Names of the classes, by label."""

SIZE = 28
RADII = (5.0, 11.0)
"""Smallest and largest radius of the circle around a shape, pixels."""
_INNER = 0.45


def draw_shapes(
    count: int, *, seed: int
) -> tuple[UInt8[np.ndarray, "N 28 28 1"], Int32[np.ndarray, " N"]]:
    """Draws white shapes on black: random radius, place and rotation, all inside the image.

    Args:
        count: number of images N; classes take turns.
        seed: seed of the draws.

    Returns:
        Images with values 0 and 255, and labels.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % len(SHAPES)
    images = np.zeros((count, SIZE, SIZE, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        radius = generator.uniform(*RADII)
        centre = generator.uniform(radius, SIZE - radius, size=2)
        corners = _corners(SHAPES[label], generator.uniform(0, 2 * math.pi))
        image[..., 0] = 255 * _inside(corners * radius + centre)
    order = generator.permutation(count)
    return images[order], labels[order]


def _corners(shape: str, angle: float) -> np.ndarray:
    """Returns the corners of a shape on a circle of radius 1, float[K, 2], in order."""
    count = {"circle": 64, "square": 4, "star": 10, "triangle": 3}[shape]
    angles = angle + 2 * math.pi * np.arange(count) / count
    radii = np.where(np.arange(count) % 2, _INNER, 1.0) if shape == "star" else np.ones(count)
    return radii[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _inside(corners: np.ndarray) -> np.ndarray:
    """Returns which centres of pixels are inside a polygon, bool[SIZE, SIZE], by crossings."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = np.zeros((SIZE, SIZE), bool)
    for (y1, x1), (y2, x2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > rows) != (y2 > rows)
        inside ^= crosses & (columns < x1 + (rows - y1) / (y2 - y1) * (x2 - x1))
    return inside
