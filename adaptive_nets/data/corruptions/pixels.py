"""Conversion between bytes and intensities, and random numbers that belong to one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Generators = Sequence[np.random.Generator]
"""One random generator for each image of a batch."""

# In grey levels. The official generators cut off decimals, so that the rounding of a floating-point
# number decides whether an unchanged pixel keeps its value; this much keeps it.
_TOLERANCE = 1e-4


def to_intensities(images: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Converts uint8 to floating-point intensities in [0, 1]."""
    return images.astype(dtype) / dtype(255)


def to_bytes(intensities: np.ndarray) -> np.ndarray:
    """Clips intensities to [0, 1] and converts them to uint8, rounding down as the generators do.

    Args:
        intensities: float array of any shape.

    Returns:
        uint8 array of the same shape.
    """
    levels = np.clip(intensities, 0, 1) * 255 + _TOLERANCE
    return levels.astype(np.uint8)


def draw(
    generators: Generators,
    shape: tuple[int, ...],
    sample: Callable[[np.random.Generator], np.ndarray],
    dtype: type = np.float64,
) -> np.ndarray:
    """Draws an array for each image from the image's own generator.

    Args:
        generators: one generator for each of N images.
        shape: shape of the array of one image.
        sample: draws that array.
        dtype: type of the result.

    Returns:
        Array of shape [N, *shape].
    """
    drawn = np.empty((len(generators), *shape), dtype)
    for i, generator in enumerate(generators):
        drawn[i] = sample(generator)
    return drawn
