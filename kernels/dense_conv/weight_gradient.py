"""Weight gradients on a CPU as matrix products of gathered rows.

XLA's CPU backend computes a weight gradient as a convolution whose window is the map of output
gradients. It takes up to eighteen times as long as the product of gathered rows (im2col) with the
output gradients. The rows of a few images at a time are gathered in a loop, so that they stay in
cache, and summed over images by the product.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Bytes of gathered rows at a time: the level-2 cache of a server core. Measured between 0.3 and
# 3 MB the time changes by a quarter; a single image may exceed it.
_ROW_BYTES = 1_300_000

# The derivative of an NHWC convolution for its HWIO weights, as a convolution: channels take the
# place of images, images that of features, and output gradients that of the window.
_FORM = ((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))


class Layer(NamedTuple):
    """Convolution whose weight gradient is computed.

    Attributes:
        window: (KH, KW).
        strides: (vertical, horizontal).
        dilation: distance between taps, (vertical, horizontal).
        padding: ((top, bottom), (left, right)); negative padding crops.
    """

    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]


def layer_of(x: Array, dy: Array, **params: Any) -> Layer | None:
    """Returns the layer if a convolution is the weight gradient of one, else None.

    Args:
        x: float[N, H, W, C], input of the layer.
        dy: float[N, H', W', O], gradient with respect to its output.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    if tuple(map(tuple, params["dimension_numbers"])) != _FORM:
        return None
    if set(params["lhs_dilation"]) != {1} or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    strides, dilation = tuple(params["rhs_dilation"]), tuple(params["window_strides"])
    padding = tuple(params["padding"])
    window = tuple(
        (n + sum(pad) - (m - 1) * s - 1) // d + 1
        for n, m, s, d, pad in zip(
            x.shape[1:3], dy.shape[1:3], strides, dilation, padding, strict=True
        )
    )
    # A window larger than the map is an ordinary convolution of the map.
    if min(window) < 1 or math.prod(window) > math.prod(dy.shape[1:3]):
        return None
    return Layer(window, strides, dilation, padding)


def by_rows(
    x: Float[Array, "N H W C"], dy: Float[Array, "N H2 W2 O"], layer: Layer, dtype: Any
) -> Float[Array, "KH KW C O"]:
    """Computes the weight gradient of a convolution by products of rows.

    Args:
        x: float[N, H, W, C], input of the layer.
        dy: float[N, H', W', O], gradient with respect to its output.
        layer: the convolution.
        dtype: dtype of the result; sums are in float32 at least.
    """
    images, channels, outputs = len(x), x.shape[3], dy.shape[3]
    total_dtype = jnp.promote_types(dtype, jnp.float32)
    x = lax.pad(
        x, jnp.zeros((), x.dtype), ((0, 0, 0), *((a, b, 0) for a, b in layer.padding), (0, 0, 0))
    )

    def product(part: tuple[Array, Array]) -> Array:
        rows = gather_rows(part[0], layer, dy.shape[1:3])
        gradients = part[1].reshape(-1, outputs)
        return lax.dot_general(
            rows, gradients, (((0,), (0,)), ((), ())), preferred_element_type=total_dtype
        )

    depth = math.prod(layer.window) * channels
    size = images_at_once(images, math.prod(dy.shape[1:3]) * depth * x.dtype.itemsize)
    if math.prod(layer.window) == 1:
        size = images
    steps = images // size
    whole = [array[: steps * size].reshape(steps, size, *array.shape[1:]) for array in (x, dy)]
    total = product((whole[0][0], whole[1][0]))
    if steps > 1:
        total, _ = lax.scan(
            lambda total, part: (total + product(part), None), total, (whole[0][1:], whole[1][1:])
        )
    if steps * size < images:
        total = total + product((x[steps * size :], dy[steps * size :]))
    return total.reshape(*layer.window, channels, outputs).astype(dtype)


def images_at_once(images: int, bytes_of_one: int) -> int:
    """Returns the number of images whose rows are gathered at a time, evenly divided."""
    most = min(images, max(1, _ROW_BYTES // max(bytes_of_one, 1)))
    return math.ceil(images / math.ceil(images / most))


def gather_rows(x: Array, layer: Layer, size: Sequence[int]) -> Float[Array, "R D"]:
    """Gathers the inputs of each output position side by side.

    Args:
        x: float[B, H, W, C], padded input.
        layer: the convolution.
        size: (H', W').
    """
    taps = []
    for tap in itertools.product(*map(range, layer.window)):
        first = [i * d for i, d in zip(tap, layer.dilation, strict=True)]
        last = [i + (m - 1) * s + 1 for i, m, s in zip(first, size, layer.strides, strict=True)]
        limits = (len(x), *last, x.shape[3])
        taps.append(lax.slice(x, (0, *first, 0), limits, (1, *layer.strides, 1)))
    rows = taps[0] if len(taps) == 1 else jnp.concatenate(taps, axis=-1)
    return rows.reshape(len(x) * math.prod(size), -1)
