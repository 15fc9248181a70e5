"""Convolutions whose gradient for the weights is quick on a CPU.

XLA's CPU backend computes that gradient as a convolution over the map of output gradients. Where
this map leaves the cache, or the window is 1x1, it takes several times as long as the two other
passes together; products of gathered rows do not. The choice is by shape alone.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Above this many bytes of output gradients XLA's way is the slower one, measured on two cores with
# 1 MB of second-level cache each; below this many channels it is not.
_MAP_BYTES = 10_000_000
_CHANNELS = 96

Padding = tuple[tuple[int, int], tuple[int, int]]


def is_worthwhile(
    output_shape: tuple[int, ...], window: tuple[int, int], element_bytes: int = 4
) -> bool:
    """Whether products of rows are the quicker way to the weights' gradient.

    Args:
        output_shape: (N, H', W', O).
        window: (KH, KW).
        element_bytes: of an output.
    """
    if window == (1, 1):
        return True
    size = math.prod(output_shape) * element_bytes
    return size > _MAP_BYTES and output_shape[-1] >= _CHANNELS


def weight_gradient(
    x: Float[Array, "N H W C"], dy: Float[Array, "N H2 W2 O"], window: tuple[int, int], pad: Padding
) -> Float[Array, "KH KW C O"]:
    """Gradient for the weights of a convolution with stride 1, by products of rows.

    Args:
        x: the input.
        dy: gradient for the output.
        window: (KH, KW).
        pad: ((top, bottom), (left, right)).
    """
    outputs = dy.shape[-1]
    x = jnp.pad(x, ((0, 0), *pad, (0, 0)))
    transposed = (((0,), (0,)), ((), ()))

    def product(rows, gradients):
        return lax.dot_general(rows, gradients, transposed, preferred_element_type=jnp.float32)

    if window == (1, 1):
        total = product(x.reshape(-1, x.shape[-1]), dy.reshape(-1, outputs))
        return total.reshape(1, 1, -1, outputs).astype(dy.dtype)
    height, width = dy.shape[1:3]

    # One image at a time: its rows stay in cache.
    def body(total, image):
        pixels, gradients = image
        taps = [
            pixels[i : i + height, j : j + width]
            for i in range(window[0])
            for j in range(window[1])
        ]
        rows = jnp.concatenate(taps, axis=-1).reshape(height * width, -1)
        return total + product(rows, gradients.reshape(-1, outputs)), None

    start = jnp.zeros((math.prod(window) * x.shape[-1], outputs), jnp.float32)
    total, _ = lax.scan(body, start, (x, dy))
    return total.reshape(*window, -1, outputs).astype(dy.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, w, pad, precision):
    return lax.conv_general_dilated(
        x, w, (1, 1), pad, dimension_numbers=_DIMENSIONS, precision=precision
    )


def _forward(x, w, pad, precision):
    return _convolve(x, w, pad, precision), (x, w)


def _backward(pad, precision, saved, dy):
    x, w = saved
    window = w.shape[:2]
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    inverse = tuple(
        (k - 1 - low, n + k - 1 - out - (k - 1 - low))
        for (low, _), k, n, out in zip(pad, window, x.shape[1:3], dy.shape[1:3], strict=True)
    )
    dx = lax.conv_general_dilated(
        dy, flipped, (1, 1), inverse, dimension_numbers=_DIMENSIONS, precision=precision
    )
    return dx, weight_gradient(x, dy, window, pad)


_convolve.defvjp(_forward, _backward)


def conv_general_dilated(
    lhs: Array, rhs: Array, window_strides: Any, padding: Any, **options: Any
) -> Array:
    """As `jax.lax.conv_general_dilated`; the same values, another way to the weights' gradient.

    What it does not cover (strides, dilation, groups, other layouts) is left to XLA.
    """
    plain = functools.partial(
        lax.conv_general_dilated, lhs, rhs, window_strides, padding, **options
    )
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
    ones = all(
        tuple(options.get(name) or (1, 1)) == (1, 1) for name in ("lhs_dilation", "rhs_dilation")
    )
    covered = (
        lhs.ndim == 4
        and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _DIMENSIONS)
        and tuple(window_strides) == (1, 1)
        and ones
        and options.get("feature_group_count", 1) == 1
    )
    if not covered:
        return plain()
    window = (rhs.shape[0], rhs.shape[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], window, (1, 1), padding)
    pad = tuple((int(low), int(high)) for low, high in padding)
    sizes = [n + sum(p) - k + 1 for n, p, k in zip(lhs.shape[1:3], pad, window, strict=True)]
    shape = (lhs.shape[0], *sizes, rhs.shape[3])
    if min(*sizes, lhs.shape[0]) < 1 or not is_worthwhile(shape, window, lhs.dtype.itemsize):
        return plain()
    return _convolve(lhs, rhs, pad, options.get("precision"))


def intercept_conv_gradients(next_fun, args, kwargs, context):
    """Interceptor for `flax.linen.intercept_methods`: every convolution takes the quick gradient.

    One that has a convolution of its own keeps it.
    """
    module = context.module
    if type(module) is nn.Conv and module.conv_general_dilated is None:
        # The module is frozen, but lives for this one call only.
        object.__setattr__(module, "conv_general_dilated", conv_general_dilated)
    return next_fun(*args, **kwargs)
