"""Conversion of an image convolution to flat pixels, window rows and tap offsets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kernels._common.geometry import Geometry


def padded_pixels(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Pads the input and flattens it over images and positions: [N·Hp·Wp, C]."""
    if geometry.padded_size != geometry.size:
        x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    return x.reshape(-1, geometry.channels)


def unpadded_image(pixels: jax.Array, geometry: Geometry) -> jax.Array:
    """Inverts `padded_pixels`: [N, H, W, C]."""
    (top, _), (left, _) = geometry.padding
    x = pixels.reshape(geometry.batch, *geometry.padded_size, geometry.channels)
    return x[:, top : top + geometry.height, left : left + geometry.width]


def tap_offsets(geometry: Geometry) -> tuple[int, ...]:
    """Returns the offset of each pixel of a window from its first pixel, in row-major order."""
    width = geometry.padded_size[1]
    kh, kw = geometry.window
    return tuple(i * width + j for i in range(kh) for j in range(kw))


def flat_weights(w: jax.Array) -> jax.Array:
    """Reshapes weights from [KH, KW, C / groups, O] to [T, C / groups, O]."""
    return w.reshape(-1, *w.shape[2:])


def window_rows(positions, geometry: Geometry):
    """Returns the row of the first pixel of each window.

    Args:
        positions: int[...], n·H'·W' + y·W' + x of output positions; NumPy or JAX.
        geometry: geometry of the convolution.

    Returns:
        int[...], NumPy or JAX as `positions`: n·Hp·Wp + y·(vertical stride)·Wp +
        x·(horizontal stride).
    """
    height, width = geometry.padded_size
    image, place = positions // geometry.positions, positions % geometry.positions
    y, x = place // geometry.output_size[1], place % geometry.output_size[1]
    return image * (height * width) + y * (geometry.strides[0] * width) + x * geometry.strides[1]


def check_rows_fit(geometry: Geometry) -> None:
    """Checks that row indices fit in int32.

    Raises:
        NotImplementedError: they do not.
    """
    rows = geometry.batch * int(np.prod(geometry.padded_size))
    if rows >= 2**31:
        raise NotImplementedError(
            f"needs fewer than 2^31 padded input positions; {geometry} has {rows}"
        )
