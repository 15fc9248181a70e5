"""Generated pictures with rectangles, to try a command without photographs."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from adaptive_nets.data.boxes import AnnotatedImage, BoxSet
from adaptive_nets.data.boxes.locations import ImageLocation

CLASS_NAMES = ("red", "blue", "green")
SPLITS = {"train": 16, "val": 8, "test": 8}
"""Number of pictures of each split."""
_SIZE = (48, 64)
_COLOURS = np.array([[230, 40, 40], [40, 60, 230], [40, 220, 60]])
_MOST = 3


@dataclass(frozen=True, slots=True)
class GeneratedPicture(ImageLocation):
    """Encoded picture in memory, in place of a file.

    Attributes:
        content: PNG.
    """

    content: bytes = b""

    def read(self) -> bytes:
        """Returns the encoded picture."""
        return self.content


def generated_boxes() -> BoxSet:
    """Returns pictures of 64x48 pixels with one to three rectangles; the colour is the class."""
    rng = np.random.default_rng(0)
    splits, number = {}, 0
    for name, count in SPLITS.items():
        images = []
        for _ in range(count):
            images.append(_picture(rng, number))
            number += 1
        splits[name] = tuple(images)
    return BoxSet("rectangles", CLASS_NAMES, splits, "memory", "generated", "generated")


def _picture(rng: np.random.Generator, number: int) -> AnnotatedImage:
    from PIL import Image

    height, width = _SIZE
    pixels = rng.normal(110, 8, (height, width, 3))
    boxes, labels = [], []
    # Each rectangle has a third of the width for itself, so that none hides another.
    part = width // _MOST
    for column in range(int(rng.integers(1, _MOST + 1))):
        tall, wide = rng.integers(10, 24), rng.integers(10, part + 1)
        top = rng.integers(0, height - tall + 1)
        left = column * part + rng.integers(0, part - wide + 1)
        label = int(rng.integers(len(CLASS_NAMES)))
        pixels[top : top + tall, left : left + wide] = _COLOURS[label]
        boxes.append((top, left, top + tall, left + wide))
        labels.append(label)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG")
    content, name = buffer.getvalue(), f"rectangles{number}.png"
    places = np.array(boxes, np.float32)
    return AnnotatedImage(
        number,
        GeneratedPicture(name, name, len(content), content=content),
        height,
        width,
        places,
        np.array(labels, np.int32),
        np.zeros(len(labels), bool),
        ((places[:, 2] - places[:, 0]) * (places[:, 3] - places[:, 1])).astype(np.float32),
    )
