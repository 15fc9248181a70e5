"""Residual unit computed at listed positions only: one loop over pieces for each window.

1x1 convolutions are fused with the convolution before them. Each loop writes a list of rows, which
the next loop reads through the list's index.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels._common import rows as rows_lib
from kernels._common.arrays import vary_over, varying_axes
from kernels._common.geometry import is_static
from kernels.masked_conv.active import (
    ActivePositions,
    fold_over_pieces,
    list_active,
    piece_sizes,
    take_rows,
)
from kernels.masked_unit.chain import BlockState, Chain, dilate


def run_sparse(
    state: BlockState,
    mask: Bool[Array, "N H W"],
    chain: Chain,
    share: Float[Array, "N H W"] | None,
) -> BlockState:
    """Runs a unit at the mask's positions; if there are none, nothing is computed.

    Args:
        state: state before the unit; at least one position.
        mask: bool[N, H, W].
        chain: residual function of the unit.
        share: float[N, H, W], share of the residual in `state.total`; None without a total.

    Returns:
        The state after the unit.
    """
    kernels = chain.kernels
    n, height, width, _ = state.x.shape
    positions = n * height * width
    masks = [mask]
    for w in reversed(kernels[1:]):
        masks.insert(0, dilate(masks[0], (w.shape[0], w.shape[1])))
    stages = _stages(kernels)
    lists = [list_active(masks[stage[0]]) for stage in stages]

    def compute() -> BlockState:
        pixels = state.x.reshape(-1, state.x.shape[3])
        # Row 0 of a window's source is zero: it stands for padding and for positions that are not
        # computed. Padding is zero after the normalisation, so if the first convolution has
        # padding, all pixels are normalised before it.
        if kernels[0].shape[:2] == (1, 1):
            source, before = pixels, chain.before
            numbers = jnp.arange(positions, dtype=jnp.int32)
        else:
            source, before = jnp.pad(chain.before(pixels), ((1, 0), (0, 0))), _unchanged
            numbers = 1 + jnp.arange(positions, dtype=jnp.int32)
        for stage, active in zip(stages, lists, strict=True):
            tall, wide, _, _ = kernels[stage[0]].shape
            product = functools.partial(
                _product,
                chain=chain,
                stage=stage,
                source=source,
                before=before,
                index=_reader(numbers, (n, height, width), (tall, wide)),
            )
            sizes = piece_sizes(
                math.prod(kernels[stage[0]].shape[:3]), element_bytes=state.x.dtype.itemsize
            )
            if stage is stages[-1]:
                piece = functools.partial(
                    _add, chain=chain, product=product, active=active, share=share
                )
                return fold_over_pieces(active.count, sizes, piece, state)
            # The last piece reaches beyond the end.
            shape = (positions + 1 + sizes[0], kernels[stage[-1]].shape[3])
            piece = functools.partial(_store, product=product, active=active)
            empty = vary_over(varying_axes(pixels), jnp.zeros(shape, state.x.dtype))
            source = fold_over_pieces(active.count, sizes, piece, empty)
            numbers, before = active.number, _unchanged
        raise AssertionError("there is a last stage")

    return lax.cond(lists[-1].count > 0, compute, lambda: state)


def _product(
    rows: Array,
    *,
    chain: Chain,
    stage: list[int],
    source: Array,
    before: Callable[[Array], Array],
    index: Callable[[Array], Array],
) -> Array:
    """Computes a stage at some positions, float[B, O]."""
    y = before(source.at[index(rows)].get(mode="promise_in_bounds"))
    for i in stage:
        w = chain.kernels[i]
        y = jnp.dot(
            y.reshape(len(rows), -1).astype(source.dtype),
            w.reshape(-1, w.shape[3]),
            preferred_element_type=rows_lib.accumulator(source.dtype),
        )
        y = chain.after(y, i)
    return y.astype(source.dtype)


def _store(start, size: int, out: Array, *, product, active: ActivePositions) -> Array:
    """Writes a piece of the next stage's source, below its row of zeros."""
    rows, _ = take_rows(active, start, size)
    return lax.dynamic_update_slice_in_dim(out, product(rows), start + 1, 0)


def _add(
    start, size: int, state: BlockState, *, chain: Chain, product, active: ActivePositions, share
) -> BlockState:
    """Adds a piece of the residual to the state."""
    rows, valid = take_rows(active, start, size)
    y = product(rows)
    n, height, width, channels = state.x.shape
    places = jnp.where(valid, rows, jnp.asarray(n * height * width, jnp.int32))

    def add(to: Array, values: Array) -> Array:
        flat = to.reshape(-1, channels)
        flat = flat.at[places].add(values.astype(to.dtype), mode="drop", unique_indices=True)
        return flat.reshape(to.shape)

    x, total, sums = state
    if chain.activates_sum:
        before = x.reshape(-1, channels).at[rows].get(mode="promise_in_bounds")
        out, y = chain.add(before, y)
        flat = x.reshape(-1, channels).at[places].set(out, mode="drop", unique_indices=True)
        x = flat.reshape(x.shape)
    else:
        x = add(x, y)
    if total is not None:
        part = share.reshape(-1).at[rows].get(mode="promise_in_bounds")
        total = add(total, y * part.astype(y.dtype)[:, None])
    if sums is not None:
        counted = jnp.where(valid[:, None], y, jnp.zeros((), y.dtype)).astype(sums.dtype)
        if is_static(n) and n == 1:
            sums = sums + jnp.sum(counted, axis=0, keepdims=True)
        else:
            sums = sums.at[rows // (height * width)].add(counted, indices_are_sorted=False)
    return BlockState(x, total, sums)


def _stages(kernels: Sequence[Array]) -> list[list[int]]:
    """Groups convolutions: each window with the 1x1 convolutions that follow it."""
    stages: list[list[int]] = []
    for i, w in enumerate(kernels):
        if i and w.shape[:2] == (1, 1):
            stages[-1].append(i)
        else:
            stages.append([i])
    return stages


def _unchanged(rows: Array) -> Array:
    return rows


def _reader(numbers: Array, size: tuple[int, int, int], window: tuple[int, int]):
    """Returns a function from positions to the source rows of their windows; row 0 is padding."""
    n, height, width = size
    if window == (1, 1):
        return lambda rows: numbers.at[rows].get(mode="promise_in_bounds")
    (top, left) = (k // 2 for k in window)
    table = jnp.pad(numbers.reshape(n, height, width), ((0, 0), (top, top), (left, left)))
    padded_height, padded_width = table.shape[1:]
    table = table.reshape(-1)
    dy, dx = np.indices(window)
    offsets = (dy * padded_width + dx).ravel().astype(np.int32)

    def index(rows):
        image, position = jnp.divmod(rows, jnp.int32(height * width))
        y, x = jnp.divmod(position, jnp.int32(width))
        first = (image * padded_height + y) * padded_width + x
        return table.at[first[:, None] + jnp.asarray(offsets)[None]].get(mode="promise_in_bounds")

    return index
