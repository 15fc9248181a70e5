"""Convolution at listed positions as matrix products of gathered rows, in cache-sized pieces.

The source is a matrix of pixels, float[M, C]: a flattened padded image, or the kept positions of a
perforated layer. An output position reads one source row per kernel tap. For each piece (block of
positions) the rows are gathered side by side and multiplied by the weights in one product. The loop
over pieces keeps gathered rows in cache; the full im2col matrix never exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from kernels._common.arrays import vary_over, varying_axes
from kernels._common.geometry import is_empty, is_static

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
        positions: number of output positions over all images, positive; symbolic with a symbolic
            batch, which then also the number of pieces is.
        depth: length of a gathered row, taps times channels.
        element_bytes: bytes per element.
    """
    target = min(MOST, max(FEWEST, PIECE_BYTES // (depth * element_bytes)))
    if not is_static(positions):
        return Pieces(target, -(-positions // target))
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
    if is_empty(numbers):
        return jnp.zeros((0, outputs), accumulator(source.dtype))
    weights = split_weights(w, groups)
    size, count = pieces(numbers, math.prod(w.shape[:3]), element_bytes=source.dtype.itemsize)

    def piece(start):
        index = expand(_numbers(start, size, numbers))
        return _product(_gather(source, index, groups), weights)

    if is_static(count) and count == 1:
        return piece(jnp.int32(0))[:numbers]
    y = lax.map(piece, size * jnp.arange(count, dtype=jnp.int32))
    return y.reshape(count * size, outputs)[:numbers]


def rows_source_gradient(
    cotangents: Float[Array, "R O"],
    w: Float[Array, "KH KW Cg O"],
    sources: int,
    expand: Expand,
    *,
    groups: int = 1,
) -> Float[Array, "M C"]:
    """Computes the gradient of `convolve_rows` for the source.

    Args:
        cotangents: float[R, O], cotangents of the outputs.
        w: float[KH, KW, C / groups, O].
        sources: number of rows of the source M.
        expand: position indices -> source rows of their taps, as in the forward pass.
        groups: number of channel groups.
    """
    total = jnp.zeros((sources, groups * w.shape[2]), accumulator(w.dtype))

    def add(index, part, total):
        return add_source_gradient(total, w, index, part, groups=groups)

    return _fold_rows(cotangents, math.prod(w.shape[:3]), expand, add, total).astype(w.dtype)


def rows_weight_gradient(
    cotangents: Float[Array, "R O"],
    source: Float[Array, "M C"],
    shape: tuple[int, int, int, int],
    expand: Expand,
    *,
    groups: int = 1,
) -> Float[Array, "KH KW Cg O"]:
    """Computes the gradient of `convolve_rows` for the weights.

    Args:
        cotangents: float[R, O], cotangents of the outputs.
        source: float[M, C].
        shape: (KH, KW, C / groups, O) of the weights.
        expand: position indices -> source rows of their taps, as in the forward pass.
        groups: number of channel groups.
    """

    def add(index, part, total):
        return add_weight_gradient(total, source, index, part, groups=groups)

    total = empty_weight_gradient(shape, source.dtype, groups)
    total = _fold_rows(cotangents, math.prod(shape[:3]), expand, add, total)
    return join_weights(total, shape).astype(source.dtype)


def _fold_rows(
    cotangents: Float[Array, "R O"],
    depth: int,
    expand: Expand,
    add: Callable[[Array, Array, Array], Array],
    total: Array,
) -> Array:
    """Folds `add(source rows, cotangents, total)` over pieces of all positions."""
    numbers = cotangents.shape[0]
    total = vary_over(varying_axes(cotangents), total)
    if is_empty(numbers):
        return total
    size, count = pieces(numbers, depth, element_bytes=cotangents.dtype.itemsize)
    # Padded positions have cotangent zero and repeat the rows of the last position.
    cotangents = jnp.pad(cotangents, ((0, size * count - numbers), (0, 0)))

    def piece(i, total):
        start = i * size
        part = lax.dynamic_slice_in_dim(cotangents, start, size)
        return add(expand(_numbers(start, size, numbers)), part, total)

    if is_static(count) and count == 1:
        return piece(jnp.int32(0), total)
    return lax.fori_loop(jnp.int32(0), jnp.asarray(count, jnp.int32), piece, total)


def _numbers(start: Array, size: int, numbers: int) -> Int[Array, " B"]:
    """Returns the positions of a piece; those beyond the end repeat the last one."""
    last = jnp.asarray(numbers, jnp.int32) - 1
    return jnp.minimum(start + jnp.arange(size, dtype=jnp.int32), last)


def add_source_gradient(
    total: Float[Array, "M C"],
    w: Float[Array, "KH KW Cg O"],
    index: Int[Array, "B T"],
    cotangents: Float[Array, "B O"],
    *,
    groups: int,
) -> Float[Array, "M C"]:
    """Adds the source gradient of one piece to a sum in the accumulator dtype."""
    parts = jnp.split(cotangents, groups, axis=1)
    rows = [
        jnp.dot(part, weights.T, preferred_element_type=total.dtype).reshape(*index.shape, -1)
        for part, weights in zip(parts, split_weights(w, groups), strict=True)
    ]
    d_row = rows[0] if groups == 1 else jnp.concatenate(rows, axis=2)
    return total.at[index].add(d_row, mode="promise_in_bounds")


def empty_weight_gradient(
    shape: tuple[int, int, int, int], dtype: Any, groups: int
) -> Float[Array, "G TCg Og"]:
    """Returns zeros for `add_weight_gradient`: one matrix per channel group."""
    kh, kw, per_group, outputs = shape
    return jnp.zeros((groups, kh * kw * per_group, outputs // groups), accumulator(dtype))


def add_weight_gradient(
    total: Float[Array, "G TCg Og"],
    source: Float[Array, "M C"],
    index: Int[Array, "B T"],
    cotangents: Float[Array, "B O"],
    *,
    groups: int,
) -> Float[Array, "G TCg Og"]:
    """Adds the weight gradient of one piece to a sum in the accumulator dtype."""
    rows = _gather(source, index, groups)
    parts = jnp.split(cotangents, groups, axis=1)
    for i, (row, part) in enumerate(zip(rows, parts, strict=True)):
        total = total.at[i].add(jnp.dot(row.T, part, preferred_element_type=total.dtype))
    return total


def join_weights(
    total: Float[Array, "G TCg Og"], shape: tuple[int, int, int, int]
) -> Float[Array, "KH KW Cg O"]:
    """Inverts `split_weights`."""
    return jnp.moveaxis(total, 0, 1).reshape(shape)
