"""Resizing of photographs and their boxes with the aspect kept, flips, and padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaptive_nets.runtime.errors import UserError


@dataclass(frozen=True)
class Resize:
    """Sizes of photographs for a detector, as in ren2015 (600 and 1000).

    The shorter side becomes `short`, or less if the longer side would exceed `long`.

    Attributes:
        short: pixels of the shorter side.
        long: most pixels of the longer side.
    """

    short: int = 600
    long: int = 1000

    def __post_init__(self):
        if not 1 <= self.short <= self.long:
            raise UserError(
                f"short side is {self.short} and long side {self.long}; expected 1 <= short <= long"
            )

    def scale(self, height: int, width: int) -> float:
        """Returns resized / original pixels of a photograph."""
        return min(self.short / min(height, width), self.long / max(height, width))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width of the resized photograph, at least 1 pixel."""
        scale = self.scale(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a photograph bilinearly, with a wider filter where it becomes smaller.

    Args:
        pixels: uint8[H, W, 3].
        size: (h, w) of the result.

    Returns:
        uint8[h, w, 3].
    """
    from PIL import Image

    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def scale_boxes(boxes: np.ndarray, scale: float, size: tuple[int, int]) -> np.ndarray:
    """Scales boxes into a resized photograph.

    Args:
        boxes: f[G, 4], (y1, x1, y2, x2), pixels of the photograph.
        scale: resized / original.
        size: (h, w) of the resized photograph; rounding makes it differ from the scale by up to
            half a pixel, so boxes are clipped to it.

    Returns:
        float32[G, 4], pixels of the resized photograph.
    """
    limits = np.array([*size, *size], np.float32)
    return np.clip(np.asarray(boxes, np.float32) * np.float32(scale), 0, limits)


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Mirrors boxes left to right.

    Args:
        boxes: f[G, 4], (y1, x1, y2, x2).
        width: width of the image, in the unit of the boxes.

    Returns:
        f[G, 4].
    """
    y1, x1, y2, x2 = np.asarray(boxes).T
    return np.stack([y1, width - x2, y2, width - x1], axis=-1)


def pad_rows(rows: np.ndarray, count: int, value: float = 0) -> np.ndarray:
    """Pads the first axis at its end to `count` rows."""
    padded = np.full((count, *rows.shape[1:]), value, rows.dtype)
    padded[: len(rows)] = rows
    return padded


def pad_image(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pads a photograph at the bottom and right with zeros.

    Args:
        pixels: uint8[h, w, 3].
        shape: (H, W) of the result, at least (h, w).

    Returns:
        uint8[H, W, 3].
    """
    padded = np.zeros((*shape, pixels.shape[2]), pixels.dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded
