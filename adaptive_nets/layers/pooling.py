"""Pooling over windows, over the whole map and onto a grid of given size.

Sizes follow Caffe and PyTorch. In ceil mode the last window may reach past the padded input, but it
must start inside the input or the padding before it; what it reaches past the padding never counts.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError

Pads = tuple[tuple[int, int], tuple[int, int]]


def max_pool(
    x: Float[Array, "N H W C"],
    window: tuple[int, int],
    strides: tuple[int, int] | None = None,
    padding: str | Pads = "VALID",
    *,
    ceil_mode: bool = False,
) -> Float[Array, "N H2 W2 C"]:
    """Maximum over windows; padding never wins.

    Where windows neither overlap nor need padding it is a reshape and a maximum: the same values as
    `flax.linen.max_pool`, whose backward pass (select-and-scatter) is several times slower on CPU.
    Among equal maxima the gradient is shared instead of going to the first.

    Args:
        x: float[N, H, W, C].
        window: (height, width).
        strides: (vertical, horizontal); the window where not given.
        padding: "VALID", "SAME" or ((top, bottom), (left, right)), less than the window.
        ceil_mode: round the output size up: a last window that is only partly filled counts.

    Returns:
        float[N, H', W', C].

    Raises:
        UserError: padding of another form, or a window that does not fit.
    """
    strides = strides or window
    (top, bottom), (left, right) = explicit_padding(x.shape[1:3], window, strides, padding)
    if _tiles(x.shape[1:3], window, strides, (top, bottom, left, right)):
        return jnp.max(_as_tiles(x, window), axis=(2, 4))
    rows = _overhang(x.shape[1], window[0], strides[0], (top, bottom), ceil_mode)
    columns = _overhang(x.shape[2], window[1], strides[1], (left, right), ceil_mode)
    # flax documents pairs, but annotates the default.
    pads: Any = ((top, bottom + rows), (left, right + columns))
    return nn.max_pool(x, window, strides, pads)


def avg_pool(
    x: Float[Array, "N H W C"],
    window: tuple[int, int],
    strides: tuple[int, int] | None = None,
    padding: str | Pads = "VALID",
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Float[Array, "N H2 W2 C"]:
    """Mean over windows, summed in float32 at least.

    Args:
        x: float[N, H, W, C].
        window: (height, width).
        strides: (vertical, horizontal); the window where not given.
        padding: "VALID", "SAME" or ((top, bottom), (left, right)), less than the window.
        ceil_mode: round the output size up: a last window that is only partly filled counts.
        count_include_pad: divide by the window's part inside the padded input, zeros of the padding
            included; else by its part inside the input.

    Returns:
        float[N, H', W', C] in the dtype of ``x``.

    Raises:
        UserError: padding of another form, or a window that does not fit.
    """
    strides = strides or window
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
    """Mean over all positions, float[N, H, W, C] -> float[N, C]."""
    return jnp.mean(x, axis=(1, 2))


def adaptive_avg_pool(
    x: Float[Array, "N H W C"], output_size: tuple[int, int]
) -> Float[Array, "N H2 W2 C"]:
    """Mean over windows laid out so that the output has a given size.

    Output i of a side of n averages positions floor(i n / out) up to, and without,
    ceil((i + 1) n / out), as in PyTorch: windows overlap where ``out`` does not divide n (8 -> 3
    takes 0-2, 2-5, 5-7), and repeat where it is larger than n.

    Args:
        x: float[N, H, W, C].
        output_size: (height, width) of the output.

    Returns:
        float[N, *output_size, C] in the dtype of ``x``.
    """
    height, width = x.shape[1:3]
    rows, columns = output_size
    if height % rows == 0 and width % columns == 0:
        return jnp.mean(_as_tiles(x, (height // rows, width // columns)), axis=(2, 4))
    # Two small products; they are sums, so no accelerator may round them to a narrower format.
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    averages = jnp.einsum(
        "nhwc,ph,qw->npqc",
        x.astype(dtype),
        _averaging_matrix(height, rows).astype(dtype),
        _averaging_matrix(width, columns).astype(dtype),
        precision=jax.lax.Precision.HIGHEST,
    )
    return averages.astype(x.dtype)


def explicit_padding(
    size: tuple[int, ...],
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: str | Pads,
) -> Pads:
    """Padding as ((top, bottom), (left, right)).

    Raises:
        UserError: it has another form, is negative or as large as the window, or the window does
            not fit into the padded input.
    """
    pairs: Any = padding
    if isinstance(padding, str):
        if padding not in ("VALID", "SAME"):
            raise UserError(f"padding {padding!r} is unknown; expected VALID or SAME")
        pairs = jax.lax.padtype_to_pads(size, window, strides, padding)
    try:
        (top, bottom), (left, right) = pairs
    except (TypeError, ValueError):
        raise UserError(
            f"padding is {padding!r}; expected VALID, SAME or ((top, bottom), (left, right))"
        ) from None
    for side, pads in zip(window, ((top, bottom), (left, right)), strict=True):
        if min(pads) < 0 or max(pads) >= side:
            raise UserError(
                f"padding is {padding!r}; expected at least 0 and less than the window {window}"
            )
    return (top, bottom), (left, right)


def _overhang(size: int, window: int, stride: int, pads: tuple[int, int], ceil_mode: bool) -> int:
    """Extra padding behind a side that lets its last window fit."""
    padded = size + sum(pads)
    count = (padded - window) // stride + 1
    if ceil_mode:
        rounded_up = -((window - padded) // stride) + 1
        if (rounded_up - 1) * stride < size + pads[0]:
            count = rounded_up
    if count < 1:
        raise UserError(
            f"a window of {window} does not fit into {size} positions with padding {pads}"
        )
    return max((count - 1) * stride + window - padded, 0)


def _counts(
    size: int, window: int, stride: int, pads: tuple[int, int], count: int, include_pad: bool
) -> np.ndarray:
    """Positions that each window along a side averages over."""
    first, last = (-pads[0], size + pads[1]) if include_pad else (0, size)
    starts = np.arange(count) * stride - pads[0]
    return np.minimum(starts + window, last) - np.maximum(starts, first)


def _tiles(
    size: tuple[int, ...], window: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...]
) -> bool:
    """Whether windows cover the input exactly once."""
    whole = size[0] % window[0] == 0 and size[1] % window[1] == 0
    return tuple(strides) == tuple(window) and whole and not any(pads) and 0 not in size


def _as_tiles(x: Array, window: tuple[int, int]) -> Float[Array, "N R h S w C"]:
    n, height, width, channels = x.shape
    return x.reshape(n, height // window[0], window[0], width // window[1], window[1], channels)


def _averaging_matrix(size: int, count: int) -> np.ndarray:
    """float64[count, size]; row i averages over its window."""
    matrix = np.zeros((count, size))
    for i in range(count):
        start, stop = i * size // count, -(-(i + 1) * size // count)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
