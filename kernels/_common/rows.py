"""Convolution at listed positions as matrix products of gathered rows, in cache-sized pieces.

The source is a matrix of pixels, float[M, C]: a flattened padded image, or the kept positions of a
perforated layer. An output position reads one source row per kernel tap. For each piece (block of
positions) the rows are gathered side by side and multiplied by the weights in one product. The loop
over pieces keeps gathered rows in cache; the full im2col matrix never exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# Bytes of gathered rows per piece, and bounds on its positions. Measured on two cores with 0.5 MB
# of L2 cache each: the product needs some hundred rows, more if rows are short, and slows down if a
# piece exceeds the L3 cache.
PIECE_BYTES = 6_000_000
FEWEST, MOST = 256, 1024
_ALIGNMENT = 8

Expand = Callable[[Int[Array, " B"]], Int[Array, "B T"]]
"""Indices of positions -> source row that each tap reads."""


class Pieces(NamedTuple):
    """Division of positions into `count` pieces of `size`; the last may extend beyond the end."""

    size: int
    count: int


def pieces(positions: int, depth: int, *, element_bytes: int = 4) -> Pieces:
    """Divides positions evenly into cache-sized pieces.

    Args:
        positions: number of output positions over all images, positive.
        depth: length of a gathered row, taps times channels.
        element_bytes: bytes per element.
    """
    target = min(MOST, max(FEWEST, PIECE_BYTES // (depth * element_bytes)))
    # At least two pieces: outside a loop XLA gathers at half the speed.
    count = max(math.ceil(positions / target), min(2, positions // _ALIGNMENT), 1)
    size = math.ceil(math.ceil(positions / count) / _ALIGNMENT) * _ALIGNMENT
    return Pieces(size, math.ceil(positions / size))


def accumulator(dtype) -> jnp.dtype:
    """Returns the accumulator dtype: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def split_weights(w: Float[Array, "KH KW Cg O"], groups: int) -> Float[Array, "G TCg Og"]:
    """Reshapes weights to one matrix per channel group."""
    kh, kw, per_group, outputs = w.shape
    split = w.reshape(kh * kw * per_group, groups, outputs // groups)
    return jnp.moveaxis(split, 1, 0)


def _gather(source: Array, index: Array, groups: int) -> list[Float[Array, "B TCg"]]:
    """Gathers the rows of a piece side by side, one matrix per channel group."""
    size = index.shape[0]
    width = source.shape[1] // groups
    parts = (source[:, i * width : (i + 1) * width] for i in range(groups))
    return [part.at[index].get(mode="promise_in_bounds").reshape(size, -1) for part in parts]


def _product(rows: list[Float[Array, "B D"]], weights: Float[Array, "G D Og"]) -> Array:
    """Multiplies with one product per group; XLA's batched product is far slower on a CPU."""
    dtype = accumulator(weights.dtype)
    parts = [
        jnp.dot(r, w, preferred_element_type=dtype) for r, w in zip(rows, weights, strict=True)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def multiply_rows(
    source: Float[Array, "M C"], index: Int[Array, "B T"], w: Array, *, groups: int = 1
) -> Float[Array, "B O"]:
    """Computes the outputs of positions whose taps read rows `index`, in the accumulator dtype."""
    return _product(_gather(source, index, groups), split_weights(w, groups))


def convolve_rows(
    source: Float[Array, "M C"],
    w: Float[Array, "KH KW Cg O"],
    numbers: int,
    expand: Expand,
    *,
    groups: int = 1,
) -> Float[Array, "R O"]:
    """Computes the outputs of positions 0 ... numbers − 1, in the accumulator dtype.

    Args:
        source: float[M, C].
        w: float[KH, KW, C / groups, O].
        numbers: number of positions R.
        expand: position indices -> source rows of their taps; indices are clamped to R − 1.
        groups: number of channel groups.
    """
    outputs = w.shape[3]
    if not numbers:
        return jnp.zeros((0, outputs), accumulator(source.dtype))
    weights = split_weights(w, groups)
    size, count = pieces(numbers, math.prod(w.shape[:3]), element_bytes=source.dtype.itemsize)

    def piece(start):
        index = expand(jnp.minimum(start + jnp.arange(size, dtype=jnp.int32), numbers - 1))
        return _product(_gather(source, index, groups), weights)

    if count == 1:
        return piece(jnp.int32(0))[:numbers]
    y = lax.map(piece, size * jnp.arange(count, dtype=jnp.int32))
    return y.reshape(count * size, outputs)[:numbers]


def differentiate_rows(
    source: Float[Array, "M C"],
    w: Float[Array, "KH KW Cg O"],
    cotangents: Float[Array, "R O"],
    expand: Expand,
    *,
    groups: int = 1,
) -> tuple[Float[Array, "M C"], Float[Array, "KH KW Cg O"]]:
    """Computes the gradients of `convolve_rows` with respect to source and weights.

    Args:
        source: float[M, C].
        w: float[KH, KW, C / groups, O].
        cotangents: float[R, O], cotangents of the outputs.
        expand: position indices -> source rows of their taps, as in the forward pass.
        groups: number of channel groups.
    """
    numbers = cotangents.shape[0]
    weights = split_weights(w, groups)
    dtype = accumulator(source.dtype)
    size, count = (
        pieces(numbers, math.prod(w.shape[:3]), element_bytes=source.dtype.itemsize)
        if numbers
        else Pieces(0, 0)
    )
    # Padded positions have cotangent zero and repeat the rows of the last position.
    cotangents = jnp.pad(cotangents, ((0, size * count - numbers), (0, 0)))

    def piece(i, sums):
        start = i * size
        index = expand(jnp.minimum(start + jnp.arange(size, dtype=jnp.int32), numbers - 1))
        part = lax.dynamic_slice_in_dim(cotangents, start, size)
        return add_gradients(sums, source, weights, index, part, groups=groups)

    sums = jnp.zeros(source.shape, dtype), jnp.zeros(weights.shape, dtype)
    if count == 1:
        sums = piece(jnp.int32(0), sums)
    elif count:
        sums = lax.fori_loop(jnp.int32(0), jnp.int32(count), piece, sums)
    return finish_gradients(sums, source, w, groups=groups)


def add_gradients(sums, source, weights, index, cotangents, *, groups: int):
    """Adds the gradients of one piece to (source, weights) sums; weights from `split_weights`."""
    d_source, d_weights = sums
    size, taps = index.shape
    dtype = accumulator(source.dtype)
    rows = _gather(source, index, groups)
    parts = jnp.split(cotangents.astype(source.dtype), groups, axis=1)
    d_rows = []
    for i, (row, part, w) in enumerate(zip(rows, parts, weights, strict=True)):
        d_weights = d_weights.at[i].add(jnp.dot(row.T, part, preferred_element_type=dtype))
        d_row = jnp.dot(part, w.T, preferred_element_type=dtype)
        d_rows.append(d_row.reshape(size, taps, -1))
    d_row = d_rows[0] if groups == 1 else jnp.concatenate(d_rows, axis=2)
    return d_source.at[index].add(d_row, mode="promise_in_bounds"), d_weights


def finish_gradients(sums, source, w, *, groups: int):
    """Converts summed gradients to the shapes and dtypes of the source and of w."""
    d_source, d_weights = sums
    d_w = jnp.moveaxis(d_weights, 0, 1).reshape(w.shape)
    return d_source.astype(source.dtype), d_w.astype(w.dtype)
