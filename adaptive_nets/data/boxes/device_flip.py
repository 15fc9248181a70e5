"""Flip of images and their boxes on the device, for a set in memory."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray


def flip_rows(key: PRNGKeyArray, rows: Mapping[str, Array]) -> dict[str, Array]:
    """Mirrors half of the images with their boxes; an `adaptive_nets.data.device.Augment`.

    Args:
        key: of the choice.
        rows: a batch as `stream` describes it, with ``image``, ``size``, ``boxes`` and ``labels``;
            images may be normalised. Padding stays where it is.
    """
    images, boxes = rows["image"], rows["boxes"]
    count, width = images.shape[0], images.shape[2]
    chosen = jax.random.bernoulli(key, 0.5, (count,))
    real = rows["size"][:, 1, None]
    column = jnp.arange(width)[None]
    source = jnp.where(chosen[:, None] & (column < real), real - 1 - column, column)
    flipped = jnp.take_along_axis(images, source[:, None, :, None], axis=2)
    y1, x1, y2, x2 = (boxes[..., side] for side in range(4))
    end = real.astype(boxes.dtype)
    mirrored = jnp.stack([y1, end - x2, y2, end - x1], axis=-1)
    moves = chosen[:, None] & (rows["labels"] >= 0)
    return {**rows, "image": flipped, "boxes": jnp.where(moves[..., None], mirrored, boxes)}
