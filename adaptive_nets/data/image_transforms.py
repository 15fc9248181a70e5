"""From the bytes of a photograph to the pixels of a fixed size, with Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np

CENTRAL_SHARE = 0.875
_AREA, _RATIO, _ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def random_crop_box(
    width: int, height: int, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Part of an image to train on, as in szegedy2014 and torchvision's RandomResizedCrop.

    An area of 8 % to 100 % of the image with a ratio of sides of 3/4 to 4/3, both drawn uniformly,
    the ratio on a logarithmic scale; after ten draws that do not fit, the largest central part
    whose ratio is allowed.

    Returns:
        (left, top, right, bottom) in whole pixels.
    """
    for _ in range(_ATTEMPTS):
        area = width * height * generator.uniform(*_AREA)
        ratio = math.exp(generator.uniform(*np.log(_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(generator.integers(0, width - w + 1))
            top = int(generator.integers(0, height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, _RATIO[0]), _RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def central_crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """The middle 87.5 % of the shorter side, square: resizing to 256 and cropping 224 in one."""
    side = CENTRAL_SHARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def decode_for_training(
    content: bytes, *, size: int, flip: bool, generator: np.random.Generator
) -> np.ndarray:
    """A random part of the image, resized, half of the time mirrored: uint8[size, size, 3]."""
    pixels = _read(content, lambda width, height: random_crop_box(width, height, generator), size)
    if flip and generator.random() < 0.5:
        pixels = pixels[:, ::-1]
    return pixels


def decode_for_evaluation(content: bytes, *, size: int) -> np.ndarray:
    """The middle of the image, resized: uint8[size, size, 3]."""
    return _read(content, central_crop_box, size)


def _read(
    content: bytes, choose: Callable[[int, int], tuple[float, float, float, float]], size: int
) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        # Pillow widens the filter when it makes smaller, so nothing is skipped over.
        resized = image.convert("RGB").resize(
            (size, size), Image.Resampling.BILINEAR, box=choose(*image.size)
        )
    return np.asarray(resized)
