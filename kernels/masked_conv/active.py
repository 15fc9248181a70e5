"""Active positions of a run-time mask as a list, and loops over as many of them as there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from kernels._common.rows import MOST, PIECE_BYTES


class ActivePositions(NamedTuple):
    """Where a mask is True.

    Attributes:
        rows: int32[R], flat indices of the active positions in ascending order, then zeros.
        count: int32[], how many there are.
        number: int32[M], 1 + place in `rows` of an active position, 0 of another one.
    """

    rows: Int[Array, " R"]
    count: Int[Array, ""]
    number: Int[Array, " M"]


def list_active(mask: Bool[Array, "..."], *, capacity: int | None = None) -> ActivePositions:
    """Lists the positions of a mask that are True, at most `capacity` of them.

    Args:
        mask: bool[...], flattened row-major.
        capacity: length R of the list; the mask's size where not given.
    """
    flat = mask.reshape(-1)
    size = flat.shape[0]
    capacity = size if capacity is None else capacity
    until = jnp.cumsum(flat, dtype=jnp.int32)
    number = jnp.where(flat, until, 0)
    place = jnp.where(flat, until - 1, capacity)
    rows = jnp.zeros(capacity, jnp.int32)
    rows = rows.at[place].set(jnp.arange(size, dtype=jnp.int32), mode="drop", unique_indices=True)
    count = until[-1] if size else jnp.int32(0)
    return ActivePositions(rows, count, number)


def piece_sizes(depth: int, *, element_bytes: int = 4) -> tuple[int, ...]:
    """Sizes of pieces for a number of positions known only at run time, large ones first.

    Most positions go through products of a good size; what is left over goes through smaller ones,
    so that little is computed for nothing. Few sizes, since each is compiled.

    Args:
        depth: length of a gathered row.
        element_bytes: size of an element.
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
        count: number of positions, a run-time value: so many trips are made and no more.
        sizes: of the pieces, descending.
        body: of a piece's first position, its static size and the state; a piece may reach beyond
            the end, by less than the largest size.
        state: to begin with.
    """
    start = jnp.int32(0)
    for size in sizes:
        left = count - start
        # A product pays for its weights before its rows: one piece that is three quarters full
        # is sooner done than several small ones.
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
    """Folds `body(start, size, state)` over pieces of 0 ... count − 1, as equal as they can be.

    Args:
        count: number of positions.
        size: of a piece, at most.
        body: of a piece's first position, its static size and the state; no piece reaches beyond
            the end.
        state: to begin with.
    """
    size = -(-count // -(-count // size)) if count else size
    whole, rest = divmod(count, size)
    if whole:
        state = lax.fori_loop(0, whole, lambda i, state: body(i * size, size, state), state)
    return body(jnp.int32(whole * size), rest, state) if rest else state


def take_rows(active: ActivePositions, start: Int[Array, ""], size: int) -> tuple[Array, Array]:
    """Rows of a piece, and which of them are active; those beyond the end repeat row 0.

    Args:
        active: the list.
        start: first place of the piece.
        size: number of places.
    """
    place = start + jnp.arange(size, dtype=jnp.int32)
    rows = active.rows.at[place].get(mode="fill", fill_value=0)
    return rows, place < active.count
