"""Compaction of a run-time mask to a list of active positions, and loops of run-time length."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from kernels._common.arrays import vary_over, varying_axes
from kernels._common.geometry import is_empty, is_static
from kernels._common.rows import MOST, PIECE_BYTES


class ActivePositions(NamedTuple):
    """Compacted positions of a mask.

    Attributes:
        rows: int32[R], flat indices of the active positions in ascending order, padded with zeros.
        count: int32[], number of active positions.
        number: int32[M], 1 + index in `rows` at active positions, 0 elsewhere.
    """

    rows: Int[Array, " R"]
    count: Int[Array, ""]
    number: Int[Array, " M"]


def list_active(mask: Bool[Array, "..."], *, capacity: int | None = None) -> ActivePositions:
    """Lists the True positions of a mask by a prefix sum; positions beyond `capacity` are dropped.

    Args:
        mask: bool[...], flattened in row-major order.
        capacity: length R of the list; by default the size of the mask.
    """
    flat = mask.reshape(-1)
    size = flat.shape[0]
    capacity = size if capacity is None else capacity
    prefix_sum = jnp.cumsum(flat, dtype=jnp.int32)
    number = jnp.where(flat, prefix_sum, 0)
    slot = jnp.where(flat, prefix_sum - 1, jnp.asarray(capacity, jnp.int32))
    rows = vary_over(varying_axes(flat), jnp.zeros(capacity, jnp.int32))
    rows = rows.at[slot].set(jnp.arange(size, dtype=jnp.int32), mode="drop", unique_indices=True)
    count = jnp.sum(flat, dtype=jnp.int32) if is_empty(size) else prefix_sum[-1]
    return ActivePositions(rows, count, number)


def piece_sizes(depth: int, *, element_bytes: int = 4) -> tuple[int, ...]:
    """Returns the static piece sizes for a run-time number of positions, in descending order.

    Most positions are processed in pieces of the largest size and the remainder in smaller ones, so
    that little padding is computed. There are few sizes, since each one is compiled.

    Args:
        depth: length of a gathered row.
        element_bytes: bytes per element.
    """
    largest = 2 ** int(math.log2(max(PIECE_BYTES // (depth * element_bytes), 1)))
    largest = min(MOST, max(256, largest))
    return largest, largest // 2, largest // 8


def fold_over_pieces(
    count: Int[Array, ""],
    sizes: tuple[int, ...],
    body: Callable[[Int[Array, ""], int, Any], Any],
    state: Any,
) -> Any:
    """Folds `body(start, size, state)` over pieces that cover 0 ... count − 1.

    Args:
        count: run-time number of positions; the number of iterations depends on it.
        sizes: static piece sizes in descending order.
        body: (first position, static size, state) -> state. A piece may extend beyond the end by
            less than the largest size.
        state: initial state.
    """
    start = jnp.int32(0)
    for size in sizes:
        left = count - start
        # A product has a fixed cost for loading its weights, so one piece that is at least three
        # quarters full is faster than several small ones.
        spare = size // 4 if size != sizes[-1] else size - 1
        trips = jnp.maximum(left + spare, 0) // size

        def step(i, state, *, size=size, start=start):
            return body(start + i * size, size, state)

        state = lax.fori_loop(jnp.int32(0), trips.astype(jnp.int32), step, state)
        start = start + trips * size
    return state


def fold_over_all_positions(
    count: int, size: int, body: Callable[[Int[Array, ""], int, Any], Any], state: Any
) -> Any:
    """Folds `body(start, size, state)` over nearly equal pieces of 0 ... count − 1.

    Args:
        count: static number of positions; a symbolic one makes a single piece.
        size: maximum size of a piece.
        body: (first position, static size, state) -> state. No piece extends beyond the end.
        state: initial state.
    """
    if not is_static(count):
        return body(jnp.int32(0), count, state)
    size = -(-count // -(-count // size)) if count else size
    whole, rest = divmod(count, size)
    if whole:
        state = lax.fori_loop(0, whole, lambda i, state: body(i * size, size, state), state)
    return body(jnp.int32(whole * size), rest, state) if rest else state


def take_rows(active: ActivePositions, start: Int[Array, ""], size: int) -> tuple[Array, Array]:
    """Returns the rows of a piece and the mask of valid ones; rows beyond the end are 0.

    Args:
        active: list of active positions.
        start: index of the first list entry.
        size: number of entries.
    """
    slots = start + jnp.arange(size, dtype=jnp.int32)
    rows = active.rows.at[slots].get(mode="fill", fill_value=0)
    return rows, slots < active.count
