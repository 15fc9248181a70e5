"""Decoding, cropping and resizing of photographs with Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np

CENTRAL_SHARE = 0.875
CROP_AREA = (0.08, 1.0)
"""Default range of the area of random crops, as shares of the image."""
_RATIO, _ATTEMPTS = (3 / 4, 4 / 3), 10


def random_crop_box(
    width: int,
    height: int,
    generator: np.random.Generator,
    area: tuple[float, float] = CROP_AREA,
) -> tuple[float, float, float, float]:
    """Draws a random training crop, as in szegedy2014 and torchvision's RandomResizedCrop.

    The area is uniform, and the aspect ratio is log-uniform in 3/4 to 4/3. After ten draws that do
    not fit, the result is the largest central crop with an allowed aspect ratio.

    Args:
        width: width of the image, pixels.
        height: height of the image, pixels.
        generator: random generator of the example.
        area: smallest and largest area, as shares of the image.

    Returns:
        (left, top, right, bottom) in whole pixels.
    """
    for _ in range(_ATTEMPTS):
        pixels = width * height * generator.uniform(*area)
        ratio = math.exp(generator.uniform(*np.log(_RATIO)))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(generator.integers(0, width - w + 1))
            top = int(generator.integers(0, height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, _RATIO[0]), _RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def central_crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """Returns the central square of 87.5 % of the shorter side: resize to 256, crop to 224."""
    side = CENTRAL_SHARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def decode_for_training(
    content: bytes,
    *,
    size: int,
    flip: bool,
    generator: np.random.Generator,
    area: tuple[float, float] = CROP_AREA,
) -> np.ndarray:
    """Decodes a random crop, mirrored with probability 1/2 if `flip`: uint8[size, size, 3]."""
    pixels = _read(content, lambda w, h: random_crop_box(w, h, generator, area), size)
    if flip and generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    return pixels


def decode_for_evaluation(content: bytes, *, size: int) -> np.ndarray:
    """Decodes the central crop: uint8[size, size, 3]."""
    return _read(content, central_crop_box, size)


def _read(
    content: bytes, choose: Callable[[int, int], tuple[float, float, float, float]], size: int
) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        # Pillow widens the filter when downsampling, which avoids aliasing.
        resized = image.convert("RGB").resize(
            (size, size), Image.Resampling.BILINEAR, box=choose(*image.size)
        )
    return np.asarray(resized)
