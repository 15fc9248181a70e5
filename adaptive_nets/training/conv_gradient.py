"""Fast weight gradients of convolutions on a CPU.

XLA's CPU backend computes the weight gradient as a convolution over the map of output gradients. If
the map exceeds the cache or the window is 1x1, this takes several times as long as the forward pass
and the input gradient together. A matrix product of gathered rows (im2col) is faster there. The
choice depends on shapes alone.
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
# Measured on two cores with 1 MB of L2 cache each: XLA's gradient is slower above so many bytes of
# output gradients, if there are at least so many channels.
_MAP_BYTES = 10_000_000
_CHANNELS = 96

Padding = tuple[tuple[int, int], tuple[int, int]]


def is_worthwhile(
    output_shape: tuple[int, ...], window: tuple[int, int], element_bytes: int = 4
) -> bool:
    """Returns whether products of rows compute the weight gradient faster than XLA.

    Args:
        output_shape: (N, H', W', O).
        window: (KH, KW).
        element_bytes: size of an output element in bytes.
    """
    if window == (1, 1):
        return True
    size = math.prod(output_shape) * element_bytes
    return size > _MAP_BYTES and output_shape[-1] >= _CHANNELS


def weight_gradient(
    x: Float[Array, "N H W C"], dy: Float[Array, "N H2 W2 O"], window: tuple[int, int], pad: Padding
) -> Float[Array, "KH KW C O"]:
    """Computes the weight gradient of a convolution with stride 1 by products of rows.

    Args:
        x: float[N, H, W, C], input.
        dy: float[N, H', W', O], gradient with respect to the output.
        window: (KH, KW).
        pad: ((top, bottom), (left, right)).

    Returns:
        float[KH, KW, C, O] in dy's dtype, accumulated in float32.
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
    """Computes `jax.lax.conv_general_dilated` with the faster weight gradient where it applies.

    Strides, dilation, groups and other layouts fall back to XLA.
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
    """Makes every `nn.Conv` use `conv_general_dilated`; for `flax.linen.intercept_methods`.

    A module that sets its own ``conv_general_dilated`` keeps it.
    """
    module = context.module
    if type(module) is nn.Conv and module.conv_general_dilated is None:
        # Linen modules are frozen; this instance lives for one call only.
        object.__setattr__(module, "conv_general_dilated", conv_general_dilated)
    return next_fun(*args, **kwargs)
