"""Ponder cost inside and outside of true boxes."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.detection.output import inside_sizes
from adaptive_nets.halting.arguments import as_array
from adaptive_nets.runtime.errors import UserError


@flax.struct.dataclass
class PonderContrast:
    """Mean ponder cost of the pixels inside and outside of the boxes of N images.

    Attributes:
        inside: float32[N], over pixels in some box; NaN for an image without one.
        outside: float32[N], over the other pixels of the image; NaN if boxes cover it.
    """

    inside: Float[Array, "N"]
    outside: Float[Array, "N"]

    @property
    def ratio(self) -> Float[Array, "N"]:
        """Cost inside over cost outside, float32[N]; above 1 where objects get more units."""
        return self.inside / self.outside


def ponder_contrast(
    maps: Float[Array, "N H W"],
    boxes: Float[Array, "N G 4"],
    is_box: Bool[Array, "N G"],
    size: Int[Array, "N 2"],
) -> PonderContrast:
    """Compares the ponder cost inside boxes with that outside, for each image.

    A pixel (i, j) is inside a box that contains its centre, (i + ½, j + ½).

    Args:
        maps: float[N, H, W], ponder cost of every pixel, see `image_ponder_map`.
        boxes: float[N, G, 4], (y1, x1, y2, x2) in pixels.
        is_box: bool[N, G], False for padding of the boxes.
        size: int[N, 2], (height, width) of each image without padding.

    Raises:
        UserError: an array has another shape.
    """
    maps = as_array("maps", maps, ndim=3, axes="[N, H, W]")
    count, height, width = maps.shape
    boxes, is_box, size = jnp.asarray(boxes), jnp.asarray(is_box), jnp.asarray(size)
    if boxes.ndim != 3 or boxes.shape[0] != count or boxes.shape[2] != 4:
        raise UserError(f"boxes has shape {boxes.shape}; expected ({count}, G, 4)")
    if is_box.shape != boxes.shape[:2]:
        raise UserError(f"is_box has shape {is_box.shape}; expected {boxes.shape[:2]}")
    if size.shape != (count, 2):
        raise UserError(f"size has shape {size.shape}; expected ({count}, 2)")
    rows = jnp.arange(height, dtype=jnp.float32)[None, None] + 0.5
    columns = jnp.arange(width, dtype=jnp.float32)[None, None] + 0.5
    in_rows = (rows >= boxes[..., :1]) & (rows < boxes[..., 2:3]) & is_box[..., None]
    in_columns = (columns >= boxes[..., 1:2]) & (columns < boxes[..., 3:])
    covered = jnp.any(in_rows[..., None] & in_columns[..., None, :], axis=1)
    image = inside_sizes(size, (height, width))

    def mean(mask: Array) -> Array:
        total = jnp.sum(jnp.where(mask, maps, 0.0), axis=(1, 2))
        return total / jnp.sum(mask, axis=(1, 2))

    return PonderContrast(mean(image & covered), mean(image & ~covered))
