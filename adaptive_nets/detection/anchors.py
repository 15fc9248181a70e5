"""Anchors: reference boxes at every position of a map [ren2015, section 3.1]."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.detection.arguments import check_sizes
from adaptive_nets.halting.arguments import check_positive_integer


def anchor_boxes(
    map_size: tuple[int, int], *, stride: int, sizes: Sequence[float], ratios: Sequence[float]
) -> Float[np.ndarray, "M 4"]:
    """Returns the anchors of a map: every size with every ratio, centred on each position.

    Position (i, j) has its centre at ((i + ½)·stride, (j + ½)·stride) pixels. An anchor of size s
    and ratio r is s·√r high and s/√r wide.

    Args:
        map_size: (H, W) of the map.
        stride: pixels per position.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: ratios of height to width.

    Returns:
        float32[H·W·A, 4], a constant; anchors of a position are adjacent, ordered by size, then by
        ratio. They may reach beyond the image.

    Raises:
        UserError: the stride, a size or a ratio is not positive.
    """
    stride = check_positive_integer("stride", stride)
    area = np.asarray(check_sizes("sizes", sizes))[:, None]
    root = np.sqrt(np.asarray(check_sizes("ratios", ratios)))[None]
    half = 0.5 * np.stack([area * root, area / root], axis=-1).reshape(1, 1, -1, 2)
    rows, columns = ((np.arange(count) + 0.5) * stride for count in map_size)
    centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[:, :, None]
    boxes = np.concatenate([centres - half, centres + half], axis=-1)
    return boxes.reshape(-1, 4).astype(np.float32)


def inside_image(anchors: Float[Array, "M 4"], size: Int[Array, "2"]) -> Bool[Array, " M"]:
    """Returns which anchors have their centre in the image, not in the padding around it.

    Args:
        anchors: float[M, 4].
        size: (height, width) of the image without padding.
    """
    anchors = jnp.asarray(anchors)
    centres = 0.5 * (anchors[:, :2] + anchors[:, 2:])
    limits = jnp.asarray(size).astype(centres.dtype)
    return jnp.all((centres >= 0) & (centres < limits[None]), axis=1)
