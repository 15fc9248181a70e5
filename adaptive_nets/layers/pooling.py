"""Window pooling, global pooling and adaptive pooling.

Output sizes follow Caffe and PyTorch. In ceil mode the last window may extend beyond the padded
input, but it must start inside the input or its leading padding; positions beyond the padding are
ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from adaptive_nets.layers.arguments import as_array, as_pair
from adaptive_nets.runtime.errors import UserError
from kernels._common import geometry
from kernels._common.geometry import Padding

Pads = tuple[tuple[int, int], tuple[int, int]]


def max_pool(
    x: Float[Array, "N H W C"],
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    ceil_mode: bool = False,
) -> Float[Array, "N H2 W2 C"]:
    """Computes the maximum over windows; padding is −inf.

    If windows tile the input, it is a reshape and a maximum. Values equal those of
    `flax.linen.max_pool`, whose backward pass (select-and-scatter) is several times slower on a
    CPU. Equal maxima share the gradient, where select-and-scatter gives it to the first.

    Args:
        x: float[N, H, W, C].
        window: (height, width), or one number for both.
        strides: (vertical, horizontal), or one number for both; by default the window.
        padding: "VALID", "SAME", ((top, bottom), (left, right)) or one number for all sides; less
            than the window.
        ceil_mode: whether to round the output size up and so keep a partly filled last window.

    Returns:
        float[N, H', W', C].

    Raises:
        UserError: `padding` has another form, or the window does not fit.
    """
    x, window, strides = _checked(x, window, strides)
    (top, bottom), (left, right) = explicit_padding(x.shape[1:3], window, strides, padding)
    if _tiles(x.shape[1:3], window, strides, (top, bottom, left, right)):
        return jnp.max(_as_tiles(x, window), axis=(2, 4))
    rows = _overhang(x.shape[1], window[0], strides[0], (top, bottom), ceil_mode)
    columns = _overhang(x.shape[2], window[1], strides[1], (left, right), ceil_mode)
    # Pairs are documented by flax, but its annotation admits only the default.
    pads: Any = ((top, bottom + rows), (left, right + columns))
    return nn.max_pool(x, window, strides, pads)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def max_over(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """Computes the maximum over short axes, with the gradient of maxima of pairs.

    The gradient of `jnp.max` divides by the number of entries equal to the maximum. If the compiler
    computes x again for the backward pass with another rounding, none is equal, and the gradient
    is NaN. That of a pair has no division.

    Args:
        x: float[...].
        axes: axes that are reduced, in increasing order, each of at least one entry.
    """
    return jnp.max(x, axis=axes)


@max_over.defjvp
def _derivative(axes: tuple[int, ...], primals: Any, tangents: Any) -> Any:
    return jax.jvp(functools.partial(_by_pairs, axes=axes), primals, tangents)


def _by_pairs(x: Array, *, axes: tuple[int, ...]) -> Array:
    for axis in reversed(axes):
        entries = [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]
        x = functools.reduce(jnp.maximum, entries)
    return x


def tiled_max_pool(
    x: Float[Array, "N H W C"], window: int | Sequence[int]
) -> Float[Array, "N H2 W2 C"]:
    """Computes `max_pool` over windows that tile the input, with the gradient of `max_over`.

    Args:
        x: float[N, H, W, C].
        window: (height, width), or one number for both; divisors of H and W.

    Raises:
        UserError: the windows do not tile the input.
    """
    x, window, strides = _checked(x, window, None)
    if not _tiles(x.shape[1:3], window, strides, (0,)):
        raise UserError(f"windows of {window} do not tile {x.shape[1]}x{x.shape[2]} positions")
    return max_over(_as_tiles(x, window), (2, 4))


def avg_pool(
    x: Float[Array, "N H W C"],
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "N H2 W2 C"]:
    """Computes the mean over windows, with sums in float32 or wider.

    Args:
        x: float[N, H, W, C].
        window: (height, width), or one number for both.
        strides: (vertical, horizontal), or one number for both; by default the window.
        padding: "VALID", "SAME", ((top, bottom), (left, right)) or one number for all sides; less
            than the window.
        ceil_mode: whether to round the output size up and so keep a partly filled last window.
        count_include_pad: whether the divisor counts padding; positions beyond the padding never
            count.

    Returns:
        float[N, H', W', C] in the dtype of ``x``.

    Raises:
        UserError: `padding` has another form, or the window does not fit.
    """
    x, window, strides = _checked(x, window, strides)
    (top, bottom), (left, right) = explicit_padding(x.shape[1:3], window, strides, padding)
    if _tiles(x.shape[1:3], window, strides, (top, bottom, left, right)):
        return jnp.mean(_as_tiles(x, window), axis=(2, 4))
    rows = _overhang(x.shape[1], window[0], strides[0], (top, bottom), ceil_mode)
    columns = _overhang(x.shape[2], window[1], strides[1], (left, right), ceil_mode)
    sums = jax.lax.reduce_window(
        x.astype(jnp.promote_types(x.dtype, jnp.float32)),
        0.0,
        jax.lax.add,
        (1, *window, 1),
        (1, *strides, 1),
        ((0, 0), (top, bottom + rows), (left, right + columns), (0, 0)),
    )
    high, wide = sums.shape[1:3]
    tall = _counts(x.shape[1], window[0], strides[0], (top, bottom), high, count_include_pad)
    broad = _counts(x.shape[2], window[1], strides[1], (left, right), wide, count_include_pad)
    divisor = np.outer(tall, broad)[None, :, :, None]
    return (sums / divisor.astype(sums.dtype)).astype(x.dtype)


def global_avg_pool(x: Float[Array, "N H W C"]) -> Float[Array, "N C"]:
    """Averages over all positions, float[N, H, W, C] -> float[N, C]."""
    return jnp.mean(as_array("x", x, ndim=4, axes="[N, H, W, C]"), axis=(1, 2))


def adaptive_avg_pool(
    x: Float[Array, "N H W C"], output_size: tuple[int, int]
) -> Float[Array, "N H2 W2 C"]:
    """Averages over windows that give an output of the requested size.

    On an axis of size n, output i averages positions [floor(i n / out), ceil((i + 1) n / out)), as
    in PyTorch. Windows overlap if ``out`` does not divide n (8 -> 3 averages 0-2, 2-5, 5-7) and
    repeat if ``out`` is larger than n.

    Args:
        x: float[N, H, W, C].
        output_size: (height, width) of the output.

    Returns:
        float[N, *output_size, C] in the dtype of ``x``.
    """
    x = as_array("x", x, ndim=4, axes="[N, H, W, C]")
    height, width = x.shape[1:3]
    rows, columns = as_pair("output_size", output_size)
    if height % rows == 0 and width % columns == 0:
        return jnp.mean(_as_tiles(x, (height // rows, width // columns)), axis=(2, 4))
    # Highest precision: these products are averages and must not round their operands to bfloat16.
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    averages = jnp.einsum(
        "nhwc,ph,qw->npqc",
        x.astype(dtype),
        _averaging_matrix(height, rows).astype(dtype),
        _averaging_matrix(width, columns).astype(dtype),
        precision=jax.lax.Precision.HIGHEST,
    )
    return averages.astype(x.dtype)


def _checked(
    x: Any, window: Any, strides: Any
) -> tuple[Float[Array, "N H W C"], tuple[int, int], tuple[int, int]]:
    """Converts the arguments of a pooling function; strides are by default the window."""
    x = as_array("x", x, ndim=4, axes="[N, H, W, C]")
    window = as_pair("window", window)
    return x, window, window if strides is None else as_pair("strides", strides)


def explicit_padding(
    size: tuple[int, ...],
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
) -> Pads:
    """Converts padding to ((top, bottom), (left, right)).

    Raises:
        UserError: the padding has another form, is negative or is not less than the window.
    """
    try:
        (top, bottom), (left, right) = geometry.explicit_padding(
            padding, (size[0], size[1]), window, strides
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    for side, pads in zip(window, ((top, bottom), (left, right)), strict=True):
        if min(pads) < 0 or max(pads) >= side:
            raise UserError(
                f"padding is {padding!r}; expected at least 0 and less than the window {window}"
            )
    return (top, bottom), (left, right)


def _overhang(size: int, window: int, stride: int, pads: tuple[int, int], ceil_mode: bool) -> int:
    """Returns the trailing padding needed to complete the last window of an axis."""
    padded = size + sum(pads)
    count = (padded - window) // stride + 1
    if ceil_mode:
        rounded_up = -((window - padded) // stride) + 1
        if (rounded_up - 1) * stride < size + pads[0]:
            count = rounded_up
    if count < 1:
        raise UserError(
            f"a window of {window} does not fit into {size} positions with padding {pads}; "
            f"expected at most {padded}"
        )
    return max((count - 1) * stride + window - padded, 0)


def _counts(
    size: int, window: int, stride: int, pads: tuple[int, int], count: int, include_pad: bool
) -> np.ndarray:
    """Counts the positions in each window of an axis."""
    first, last = (-pads[0], size + pads[1]) if include_pad else (0, size)
    starts = np.arange(count) * stride - pads[0]
    return np.minimum(starts + window, last) - np.maximum(starts, first)


def _tiles(
    size: tuple[int, ...], window: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...]
) -> bool:
    """Checks whether the windows tile the input: no overlap, gap or padding."""
    whole = size[0] % window[0] == 0 and size[1] % window[1] == 0
    return tuple(strides) == tuple(window) and whole and not any(pads) and 0 not in size


def _as_tiles(x: Array, window: tuple[int, int]) -> Float[Array, "N R h S w C"]:
    n, height, width, channels = x.shape
    return x.reshape(n, height // window[0], window[0], width // window[1], window[1], channels)


def _averaging_matrix(size: int, count: int) -> np.ndarray:
    """Returns the averaging matrix float64[count, size] of adaptive pooling on one axis."""
    matrix = np.zeros((count, size))
    for i in range(count):
        start, stop = i * size // count, -(-(i + 1) * size // count)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
