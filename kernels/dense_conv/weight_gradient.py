"""Weight gradients on a CPU: a matrix product of rows, or XLA's convolution of few images.

XLA computes a weight gradient as a convolution whose window is the map of output gradients and
whose channels are the images. Its time per image grows once this window with all its images
exceeds the cache, so the gradients of a few images at a time are computed and added. With one or
two images it has too few channels to be fast: there, as with 1x1 windows, the gradient is a product
of the windows of the input, as rows, and the output gradients.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Bytes of output gradients at a time: chosen on cores with 1 MB of level-2 cache each, where the
# time per image changes little below and grows steeply above.
_MAP_BYTES = 6_500_000
# Most images, and bytes of their windows, for which a product of rows is faster.
_ROW_IMAGES, _ROW_BYTES = 2, 1_300_000
# Each part is a convolution of its own in the program and takes time to compile.
_MOST_PARTS = 32

# The derivative of an NHWC convolution for its HWIO weights, as a convolution: channels take the
# place of images, images that of features, and output gradients that of the window.
_FORM = ((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))


def is_weight_gradient(x: Array, dy: Array, **params: Any) -> bool:
    """Checks whether a convolution is the weight gradient of an NHWC convolution.

    Args:
        x: float[N, H, W, C], input of the layer.
        dy: float[N, H', W', O], gradient with respect to its output.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    floating = jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(dy.dtype, jnp.floating)
    return floating and tuple(map(tuple, params["dimension_numbers"])) == _FORM


def compute(
    x: Float[Array, "N H W C"], dy: Float[Array, "N H2 W2 O"], **params: Any
) -> Float[Array, "KH KW C O"]:
    """Computes the weight gradient of a convolution.

    Args:
        x: float[N, H, W, C], input of the layer.
        dy: float[N, H', W', O], gradient with respect to its output.
        **params: parameters of `jax.lax.conv_general_dilated_p`.

    Returns:
        float[KH, KW, C, O]; sums are in float32 at least.
    """
    dtype = params["preferred_element_type"] or x.dtype
    if _suits_rows(x, dy, params):
        return _by_rows(x, dy, params).astype(dtype)
    # XLA transposes both operands. Fused with what computes them, transposes take far longer.
    x, dy = lax.optimization_barrier((x, dy))
    bounds = _bounds(len(x), math.prod(dy.shape[1:]) * dy.dtype.itemsize)
    if len(bounds) == 2:
        return lax.conv_general_dilated_p.bind(x, dy, **params)
    params = {**params, "preferred_element_type": jnp.promote_types(dtype, jnp.float32)}
    parts = [
        lax.conv_general_dilated_p.bind(x[first:last], dy[first:last], **params)
        for first, last in itertools.pairwise(bounds)
    ]
    return sum(parts[1:], start=parts[0]).astype(dtype)


def _window(x: Array, dy: Array, params: dict[str, Any]) -> tuple[int, int]:
    """Returns the size of the layer's window."""
    height, width = (
        (n + sum(pad) - (m - 1) * stride - 1) // dilation + 1
        for n, m, stride, dilation, pad in zip(
            x.shape[1:3], dy.shape[1:3], params["rhs_dilation"], params["window_strides"],
            params["padding"], strict=True,
        )
    )  # fmt: skip
    return height, width


def _suits_rows(x: Array, dy: Array, params: dict[str, Any]) -> bool:
    """Returns whether a product of rows is faster: windows of 1x1, or few small images."""
    if set(params["lhs_dilation"]) != {1} or params["feature_group_count"] != 1:
        return False
    taps = math.prod(_window(x, dy, params))
    if taps == 1:
        return all(low == 0 >= high for low, high in params["padding"])
    columns = taps * x.shape[3] * dy.dtype.itemsize
    few = len(x) <= _ROW_IMAGES and columns * math.prod(dy.shape[:3]) <= _ROW_BYTES
    return few and taps > 0 and all(low >= 0 for low, _ in params["padding"])


def _by_rows(x: Array, dy: Array, params: dict[str, Any]) -> Array:
    """Computes the gradient as one matrix product over all positions; the windows are its rows."""
    window, strides = _window(x, dy, params), params["rhs_dilation"]
    padding = [(low, max(high, 0)) for low, high in params["padding"]]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = []
    for i, j in itertools.product(*map(range, window)):
        first = [at * step for at, step in zip((i, j), params["window_strides"], strict=True)]
        last = [
            at + (m - 1) * stride + 1
            for at, m, stride in zip(first, dy.shape[1:3], strides, strict=True)
        ]
        taps.append(lax.slice(x, (0, *first, 0), (len(x), *last, x.shape[3]), (1, *strides, 1)))
    total = lax.dot_general(
        jnp.concatenate(taps, axis=3).reshape(-1, len(taps) * x.shape[3]),
        dy.reshape(-1, dy.shape[3]),
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.promote_types(dy.dtype, jnp.float32),
    )
    return total.reshape(*window, x.shape[3], dy.shape[3])


def _bounds(images: int, bytes_of_one: int) -> list[int]:
    """Returns where parts of nearly equal size begin and end: 0, …, images."""
    parts = math.ceil(images * bytes_of_one / _MAP_BYTES)
    parts = max(1, min(parts, images, _MOST_PARTS))
    return [images * part // parts for part in range(parts + 1)]
