"""Residual unit computed at all positions: windows by XLA, the rest in pieces that stay in cache.

Normalisation and 1x1 convolutions before the windows are fused into one pass over the map; so are
the 1x1 convolutions after them, the residual's addition, the weighted total and the sums.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from kernels._common import rows as rows_lib
from kernels._common.arrays import vary_over, varying_axes
from kernels._common.geometry import is_static
from kernels.dense_conv import direct
from kernels.masked_conv.active import fold_over_all_positions, piece_sizes
from kernels.masked_unit.chain import BlockState, Chain


def run_dense(
    state: BlockState,
    mask: Bool[Array, "N H W"],
    chain: Chain,
    share: Float[Array, "N H W"] | None,
) -> BlockState:
    """Runs a unit at all positions and adds its residual at the mask's.

    Args:
        state: state before the unit.
        mask: bool[N, H, W].
        chain: residual function of the unit.
        share: float[N, H, W], share of the residual in `state.total`; None without a total.

    Returns:
        The state after the unit.
    """
    n, height, width, channels = state.x.shape
    positions, image = n * height * width, height * width
    points = [w.shape[:2] == (1, 1) for w in chain.kernels]
    first = points.index(False) if False in points else len(points)
    last = len(points) - points[::-1].index(False) if False in points else first
    size = piece_sizes(channels, element_bytes=state.x.dtype.itemsize)[0]

    def multiply(y: Array, which: range) -> Array:
        for i in which:
            w = chain.kernels[i]
            w = w.reshape(w.shape[2:])
            y = jnp.dot(y, w, preferred_element_type=rows_lib.accumulator(y.dtype))
            y = chain.after(y, i).astype(state.x.dtype)
        return y

    def flat(values: Array) -> Array:
        return values.reshape(positions, *values.shape[3:])

    y = flat(state.x)
    if first == 0:
        y = chain.before(y)
    else:

        def before(start: Int[Array, ""], size: int, out: Array) -> Array:
            rows = chain.before(_piece(flat(state.x), start, size))
            return _put(out, multiply(rows, range(first)), start)

        out = jnp.zeros((positions, chain.kernels[first - 1].shape[3]), state.x.dtype)
        out = vary_over(varying_axes(y), out)
        y = fold_over_all_positions(positions, size, before, out)
    y = y.reshape(n, height, width, y.shape[1])
    for i in range(first, last):
        up, left = (k // 2 for k in chain.kernels[i].shape[:2])
        padding = ((up, up), (left, left))
        y = direct(y, chain.kernels[i], strides=(1, 1), padding=padding, groups=1)
        y = chain.after(y, i)
    middle = flat(y)
    active_rows, shares = flat(mask), None if share is None else flat(share)

    def after(start: Int[Array, ""], size: int, state: BlockState) -> BlockState:
        rows = multiply(_piece(middle, start, size), range(last, len(points)))
        active = _piece(active_rows, start, size)[:, None]
        x, total, sums = state
        before = _piece(x, start, size)
        out, added = chain.add(before, rows)
        out = jnp.where(active, out, before)
        x = _put(x, out, start)
        if total is not None and shares is not None:
            added = jnp.where(active, added, jnp.zeros((), added.dtype))
            part = _piece(shares, start, size).astype(added.dtype)
            total = _put(total, _piece(total, start, size) + part[:, None] * added, start)
        if sums is not None:
            sums = _add_to_sums(sums, out, start, image)
        return BlockState(x, total, sums)

    total = None if state.total is None else flat(state.total)
    sums = None if state.sums is None else jnp.zeros_like(state.sums)
    new = BlockState(flat(state.x), total, sums)
    # All at once if nothing is left to multiply that could stay in cache. A loop would also copy
    # the state in each step: without a product between them, both its results read the old x.
    if last == len(points):
        new = after(jnp.int32(0), positions, new)
    elif is_static(image) and 0 < image <= size:

        def images(start: Int[Array, ""], count: int, new: BlockState) -> BlockState:
            return after(start * image, count * image, new)

        new = fold_over_all_positions(n, size // image, images, new)
    else:
        new = fold_over_all_positions(positions, size, after, new)
    shape = state.x.shape
    total = None if new.total is None else new.total.reshape(shape)
    return BlockState(new.x.reshape(shape), total, new.sums)


def _add_to_sums(
    sums: Float[Array, "N C"], rows: Float[Array, "B C"], start: Int[Array, ""], image: int
) -> Float[Array, "N C"]:
    """Adds rows from position `start` on to the sums of their images, of `image` positions each."""
    rows = rows.astype(sums.dtype)
    count, channels = rows.shape
    if count == sums.shape[0] * image or (is_static(image) and count % image == 0):
        found = jnp.sum(rows.reshape(-1, image, channels), axis=1)
        first = start // image
        return _put(sums, _piece(sums, first, found.shape[0]) + found, first)
    of = (start + jnp.arange(count, dtype=jnp.int32)) // image
    belongs = (of[None] == jnp.arange(sums.shape[0], dtype=jnp.int32)[:, None]).astype(sums.dtype)
    return sums + belongs @ rows


def _piece(values: Array, start: Int[Array, ""], size: int) -> Array:
    return lax.dynamic_slice_in_dim(values, start, size)


def _put(values: Array, rows: Array, start: Int[Array, ""]) -> Array:
    return lax.dynamic_update_slice_in_dim(values, rows.astype(values.dtype), start, 0)
