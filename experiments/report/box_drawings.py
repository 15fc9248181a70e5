"""Boxes with names, drawn over pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    (230, 85, 13), (49, 163, 84), (49, 130, 189), (158, 68, 200), (214, 39, 110), (188, 189, 34),
    (23, 190, 207), (140, 86, 75),
)  # fmt: skip
"""Colours of classes by label, repeated."""
TRUTH = (255, 255, 255)
"""Colour of true boxes."""


def draw_boxes(
    picture: UInt8[np.ndarray, "H W C"],
    boxes: Float[np.ndarray, "D 4"],
    texts: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws boxes over a picture, each with a text at its upper left corner.

    Args:
        picture: uint8[H, W, C]; C is 1 or 3.
        boxes: float[D, 4], (y1, x1, y2, x2) in pixels; the first is drawn on top.
        texts: text of each box; "" for none.
        colours: colour of each box, (red, green, blue).

    Raises:
        ValueError: there are not as many texts and colours as boxes.
    """
    if not len(boxes) == len(texts) == len(colours):
        raise ValueError(
            f"{len(boxes)} boxes, {len(texts)} texts and {len(colours)} colours; expected as many"
        )
    pixels = np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture
    image = Image.fromarray(np.ascontiguousarray(pixels))
    drawing = ImageDraw.Draw(image)
    height, width = pixels.shape[:2]
    thick = max(1, round(max(height, width) / 400))
    font = ImageFont.load_default(size=max(9, round(max(height, width) / 50)))
    order = range(len(boxes) - 1, -1, -1)
    for i in order:
        y1, x1, y2, x2 = (float(side) for side in boxes[i])
        # The last row and column of pixels are still in the picture.
        x2, y2 = max(x1, min(x2, width) - 1), max(y1, min(y2, height) - 1)
        drawing.rectangle((x1, y1, x2, y2), outline=tuple(colours[i]), width=thick)
    for i in order:
        if not texts[i]:
            continue
        y1, x1 = float(boxes[i][0]), float(boxes[i][1])
        left, top, right, bottom = drawing.textbbox((0, 0), texts[i], font=font)
        x = max(0.0, min(x1, width - (right - left) - 2))
        y = y1 - (bottom - top) - 2 if y1 >= bottom - top + 2 else y1
        drawing.rectangle(
            (x, y, x + right - left + 2, y + bottom - top + 2), fill=tuple(colours[i])
        )
        drawing.text((x + 1 - left, y + 1 - top), texts[i], fill=(255, 255, 255), font=font)
    return np.asarray(image, np.uint8)


def class_colour(label: int) -> tuple[int, int, int]:
    """Returns the colour of a class."""
    return COLOURS[label % len(COLOURS)]
