"""Convolution at listed positions as products of gathered rows, in pieces that stay in cache.

A source is a matrix of pixels, float[M, C]: a padded image flattened, or what a perforated layer
has kept. An output position reads one row of it per kernel tap. The rows of a piece of positions
are gathered side by side and multiplied by the weights in one product; a loop goes over the pieces,
so that the gathered rows are written and read in cache and never lie in memory as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# Bytes of gathered rows per piece, and the fewest and most positions. Measured on two cores with
# 0.5 MB of second-level cache each: the product wants some hundred rows, more of them when they are
# short, and loses where a piece leaves the third level.
PIECE_BYTES = 6_000_000
FEWEST, MOST = 256, 1024
_ALIGNMENT = 8

Expand = Callable[[Int[Array, " B"]], Int[Array, "B T"]]
"""Numbers of positions -> the source row that each tap reads."""


class Pieces(NamedTuple):
    """How positions are divided: `count` pieces of `size`, the last one perhaps beyond the end."""

    size: int
    count: int


def pieces(positions: int, depth: int, *, element_bytes: int = 4) -> Pieces:
    """Divides positions evenly into pieces of a good size.

    Args:
        positions: number of output positions, of all images, positive.
        depth: length of a gathered row, taps times channels.
        element_bytes: size of an element.
    """
    target = min(MOST, max(FEWEST, PIECE_BYTES // (depth * element_bytes)))
    # Two at least: XLA gathers at half the speed outside of a loop.
    count = max(math.ceil(positions / target), min(2, positions // _ALIGNMENT), 1)
    size = math.ceil(math.ceil(positions / count) / _ALIGNMENT) * _ALIGNMENT
    return Pieces(size, math.ceil(positions / size))


def accumulator(dtype) -> jnp.dtype:
    """In what sums of products are kept: float32, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def split_weights(w: Float[Array, "KH KW Cg O"], groups: int) -> Float[Array, "G TCg Og"]:
    """Weights as the products take them, one matrix per channel group."""
    kh, kw, per_group, outputs = w.shape
    split = w.reshape(kh * kw * per_group, groups, outputs // groups)
    return jnp.moveaxis(split, 1, 0)


def _gather(source: Array, index: Array, groups: int) -> list[Float[Array, "B TCg"]]:
    """Rows of a piece side by side, one matrix per channel group."""
    size = index.shape[0]
    width = source.shape[1] // groups
    parts = (source[:, i * width : (i + 1) * width] for i in range(groups))
    return [part.at[index].get(mode="promise_in_bounds").reshape(size, -1) for part in parts]


def _product(rows: list[Float[Array, "B D"]], weights: Float[Array, "G D Og"]) -> Array:
    """One product per group: XLA's batched product and grouped convolution are far slower."""
    dtype = accumulator(weights.dtype)
    parts = [
        jnp.dot(r, w, preferred_element_type=dtype) for r, w in zip(rows, weights, strict=True)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def multiply_rows(
    source: Float[Array, "M C"], index: Int[Array, "B T"], w: Array, *, groups: int = 1
) -> Float[Array, "B O"]:
    """Outputs of the positions whose taps read the rows `index`, in the accumulator's dtype."""
    return _product(_gather(source, index, groups), split_weights(w, groups))


def convolve_rows(
    source: Float[Array, "M C"],
    w: Float[Array, "KH KW Cg O"],
    numbers: int,
    expand: Expand,
    *,
    groups: int = 1,
) -> Float[Array, "R O"]:
    """Outputs of all positions 0 ... numbers − 1, in the accumulator's dtype.

    Args:
        source: float[M, C].
        w: float[KH, KW, C / groups, O].
        numbers: number of positions R.
        expand: of position numbers; it is asked for numbers up to the end of the last piece.
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
    """Gradients of `convolve_rows` for the source and the weights.

    Args:
        source: float[M, C].
        w: float[KH, KW, C / groups, O].
        cotangents: float[R, O], of the outputs.
        expand: as in the forward pass.
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
    # Positions beyond the end have cotangent zero and repeat the last one's rows.
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
    """Adds the gradients of one piece to (source's, weights'); weights as `split_weights` gives."""
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
    """Sums of gradients in the shapes and dtypes of the source and of w."""
    d_source, d_weights = sums
    d_w = jnp.moveaxis(d_weights, 0, 1).reshape(w.shape)
    return d_source.astype(source.dtype), d_w.astype(w.dtype)
