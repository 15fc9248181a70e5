"""Weight gradients on a CPU as matrix products of gathered rows.

XLA's CPU backend computes the weight gradient as a convolution over the map of output gradients. If
the map exceeds the cache or the window is 1x1, this takes several times as long as the forward pass
and the input gradient together. A matrix product of gathered rows (im2col) is faster there. The
choice depends on shapes alone.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Measured on two cores with 1 MB of L2 cache each: XLA's gradient is slower above so many bytes of
# output gradients, if there are at least so many channels.
_MAP_BYTES = 10_000_000
_CHANNELS = 96

# The derivative of an NHWC convolution for its HWIO weights, as a convolution: channels take the
# place of images, images that of features, and output gradients that of the window.
_FORM = ((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))


def is_worthwhile(x: Array, dy: Array, **params: Any) -> bool:
    """Checks whether a convolution is a weight gradient that products of rows compute faster.

    Args:
        x: float[N, H, W, C], input of the layer.
        dy: float[N, H', W', O], gradient with respect to its output.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    if tuple(map(tuple, params["dimension_numbers"])) != _FORM:
        return False
    ones = (params["window_strides"], params["lhs_dilation"], params["rhs_dilation"])
    if any(set(each) != {1} for each in ones) or min(map(min, params["padding"])) < 0:
        return False
    if _window(x, dy, params["padding"]) == (1, 1):
        return True
    return dy.size * dy.dtype.itemsize > _MAP_BYTES and dy.shape[-1] >= _CHANNELS


def _window(x, dy, padding) -> tuple[int, int]:
    height, width = (
        n + sum(pad) - k + 1 for n, pad, k in zip(x.shape[1:3], padding, dy.shape[1:3], strict=True)
    )
    return height, width


def by_rows(
    x: Float[Array, "N H W C"], dy: Float[Array, "N H2 W2 O"], **params: Any
) -> Float[Array, "KH KW C O"]:
    """Computes the weight gradient of a convolution with stride 1 by products of rows.

    Args:
        x: float[N, H, W, C], input of the layer.
        dy: float[N, H', W', O], gradient with respect to its output.
        **params: parameters of `jax.lax.conv_general_dilated_p`.

    Returns:
        float[KH, KW, C, O], accumulated in float32.
    """
    dtype = params["preferred_element_type"] or x.dtype
    total_dtype = jnp.promote_types(dtype, jnp.float32)
    window, outputs = _window(x, dy, params["padding"]), dy.shape[-1]
    x = jnp.pad(x, ((0, 0), *params["padding"], (0, 0)))
    transposed = (((0,), (0,)), ((), ()))

    def product(rows, gradients):
        return lax.dot_general(rows, gradients, transposed, preferred_element_type=total_dtype)

    if window == (1, 1):
        total = product(x.reshape(-1, x.shape[-1]), dy.reshape(-1, outputs))
        return total.reshape(1, 1, -1, outputs).astype(dtype)
    height, width = dy.shape[1:3]

    # One image at a time, so that its gathered rows stay in cache.
    def body(total, image):
        pixels, gradients = image
        taps = [
            pixels[i : i + height, j : j + width]
            for i in range(window[0])
            for j in range(window[1])
        ]
        rows = jnp.concatenate(taps, axis=-1).reshape(height * width, -1)
        return total + product(rows, gradients.reshape(-1, outputs)), None

    start = jnp.zeros((math.prod(window) * x.shape[-1], outputs), total_dtype)
    total, _ = lax.scan(body, start, (x, dy))
    return total.reshape(*window, -1, outputs).astype(dtype)
