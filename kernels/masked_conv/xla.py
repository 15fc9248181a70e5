"""Masked convolution in XLA operations: every platform, differentiable, optimised for CPU.

It multiplies gathered rows of the active positions in loops of run-time length, so that time is
proportional to the number of active positions and one program serves all masks.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels._common import rows as rows_lib
from kernels._common.convolution import direct
from kernels._common.geometry import Geometry
from kernels._common.windows import padded_pixels, tap_offsets, unpadded_image, window_rows
from kernels.masked_conv import cost
from kernels.masked_conv.active import (
    ActivePositions,
    fold_over_pieces,
    list_active,
    piece_sizes,
    take_rows,
)


def dense(x: Array, w: Array, mask: Array, geometry: Geometry) -> Float[Array, "N H2 W2 O"]:
    """Computes every position and zeroes the inactive ones."""
    y = direct(x, w, strides=geometry.strides, padding=geometry.padding, groups=geometry.groups)
    return jnp.where(mask[..., None], y, jnp.zeros((), y.dtype))


def forward(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    mask: Bool[Array, "N H2 W2"],
    geometry: Geometry,
    capacity: int | None,
) -> Float[Array, "N H2 W2 O"]:
    """Computes active positions only, or every position above the break-even.

    Args:
        x: input.
        w: weights.
        mask: mask of active output positions.
        geometry: geometry of the convolution.
        capacity: number of active positions above which every position is computed; None for no
            limit besides the break-even.
    """
    sizes = geometry.batch * geometry.positions
    if not sizes:
        return jnp.zeros((geometry.batch, *geometry.output_size, geometry.outputs), x.dtype)
    limit = min(cost.break_even(geometry), sizes if capacity is None else capacity)
    if limit >= sizes:
        return _sparse(x, w, mask, geometry)
    return lax.cond(
        jnp.sum(mask, dtype=jnp.int32) > limit,
        lambda: dense(x, w, mask, geometry),
        lambda: _sparse(x, w, mask, geometry),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sparse(x: Array, w: Array, mask: Array, geometry: Geometry) -> Array:
    active = list_active(mask)
    shape = (geometry.batch, *geometry.output_size, geometry.outputs)
    positions = math.prod(shape[:3])

    def compute():
        source = padded_pixels(x, geometry)

        def piece(start, size, out):
            rows, valid = take_rows(active, start, size)
            index = _window_index(rows, geometry)
            y = rows_lib.multiply_rows(source, index, w, groups=geometry.groups)
            places = jnp.where(valid, rows, jnp.int32(positions))
            return out.at[places].set(y.astype(out.dtype), mode="drop", unique_indices=True)

        out = jnp.zeros((positions, geometry.outputs), x.dtype)
        return fold_over_pieces(active.count, _sizes(geometry, x.dtype), piece, out)

    out = lax.cond(
        active.count > 0, compute, lambda: jnp.zeros((positions, geometry.outputs), x.dtype)
    )
    return out.reshape(shape)


def _sparse_forward(x, w, mask, geometry):
    return _sparse(x, w, mask, geometry), (x, w, mask)


def _sparse_backward(geometry, residuals, cotangents):
    x, w, mask = residuals
    d_x, d_w = active_gradients(x, w, list_active(mask), cotangents, geometry)
    return d_x, d_w, None


_sparse.defvjp(_sparse_forward, _sparse_backward)


def active_gradients(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    active: ActivePositions,
    cotangents: Float[Array, "N H2 W2 O"],
    geometry: Geometry,
) -> tuple[Array, Array]:
    """Computes the gradients for x and w of any implementation, over active positions."""
    flat = cotangents.reshape(-1, geometry.outputs)
    groups = geometry.groups

    def compute():
        source = padded_pixels(x, geometry)
        weights = rows_lib.split_weights(w, groups)
        dtype = rows_lib.accumulator(x.dtype)

        def piece(start, size, sums):
            rows, valid = take_rows(active, start, size)
            part = flat.at[rows].get(mode="promise_in_bounds")
            part = jnp.where(valid[:, None], part, jnp.zeros((), part.dtype))
            index = _window_index(rows, geometry)
            return rows_lib.add_gradients(sums, source, weights, index, part, groups=groups)

        sums = jnp.zeros(source.shape, dtype), jnp.zeros(weights.shape, dtype)
        sums = fold_over_pieces(active.count, _sizes(geometry, x.dtype), piece, sums)
        d_source, d_w = rows_lib.finish_gradients(sums, source, w, groups=groups)
        return unpadded_image(d_source, geometry), d_w

    return lax.cond(
        active.count > 0, compute, lambda: (jnp.zeros(x.shape, x.dtype), jnp.zeros_like(w))
    )


def _window_index(rows: Array, geometry: Geometry) -> Array:
    """Returns the pixels that the taps of output positions read, int32[B, T]."""
    offsets = jnp.asarray(tap_offsets(geometry), jnp.int32)
    return window_rows(rows, geometry)[:, None] + offsets[None]


def _sizes(geometry: Geometry, dtype) -> tuple[int, ...]:
    depth = geometry.taps * geometry.channels // geometry.groups
    return piece_sizes(depth, element_bytes=jnp.dtype(dtype).itemsize)
