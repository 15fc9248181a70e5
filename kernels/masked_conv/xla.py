"""Masked convolution in XLA operations: every platform, differentiable, optimised for CPU.

It multiplies gathered rows of the active positions in loops of run-time length, so that time is
proportional to the number of active positions and one program serves all masks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels._common import rows as rows_lib
from kernels._common.arrays import vary_over, varying_axes
from kernels._common.geometry import Geometry, is_empty
from kernels._common.trilinear import convolve
from kernels._common.windows import padded_pixels, tap_offsets, unpadded_image, window_rows
from kernels.dense_conv import direct
from kernels.masked_conv import cost
from kernels.masked_conv.active import (
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
    return convolve(MaskedConvolution(geometry, capacity), x, w, mask)


@dataclasses.dataclass(frozen=True)
class MaskedConvolution:
    """Masked convolution as a `TrilinearForm`: values and gradients at active positions.

    Attributes:
        geometry: geometry of the convolution.
        capacity: number of active positions above which every position is computed; None for no
            limit besides the break-even.
    """

    geometry: Geometry
    capacity: int | None = None

    def _choose(
        self, mask: Array, every: Callable[[], Array], active: Callable[[], Array]
    ) -> Array:
        """Runs `every` if the mask exceeds the limit, else `active`."""
        too_many = cost.exceeds_limit(mask, self.geometry, self.capacity)
        return active() if too_many is None else lax.cond(too_many, every, active)

    def y(self, x: Array, w: Array, mask: Array) -> Float[Array, "N H2 W2 O"]:
        """Computes the convolution."""
        geometry = self.geometry
        shape = (geometry.batch, *geometry.output_size, geometry.outputs)
        if is_empty(*shape[:3]):
            return jnp.zeros(shape, x.dtype)
        return self._choose(
            mask,
            lambda: dense(x, w, mask, geometry),
            lambda: convolve_active(x, w, mask, geometry),
        )

    def x(self, y: Array, w: Array, mask: Array) -> Float[Array, "N H W C"]:
        """Computes the gradient for x of an output with cotangents y."""
        geometry = self.geometry
        shape = (geometry.batch, *geometry.size, geometry.channels)

        def every() -> Array:
            x = vary_over(varying_axes(y), jnp.zeros(shape, y.dtype))
            return jax.vjp(lambda x: dense(x, w, mask, geometry), x)[1](y)[0]

        return self._choose(mask, every, lambda: active_input_gradient(y, w, mask, geometry))

    def w(self, y: Array, x: Array, mask: Array) -> Float[Array, "KH KW Cg O"]:
        """Computes the gradient for w of an output with cotangents y."""
        geometry = self.geometry
        shape = geometry.kernel_shape

        def every() -> Array:
            w = vary_over(varying_axes(y), jnp.zeros(shape, y.dtype))
            return jax.vjp(lambda w: dense(x, w, mask, geometry), w)[1](y)[0]

        return self._choose(mask, every, lambda: active_weight_gradient(y, x, mask, geometry))


def convolve_active(
    x: Array, w: Array, mask: Array, geometry: Geometry
) -> Float[Array, "N H2 W2 O"]:
    """Computes the active positions by products of gathered rows, in a loop of run-time length."""
    active = list_active(mask)
    positions = geometry.batch * geometry.positions
    empty = vary_over(varying_axes(x), jnp.zeros((positions, geometry.outputs), x.dtype))

    def compute():
        source = padded_pixels(x, geometry)

        def piece(start, size, out):
            rows, valid = take_rows(active, start, size)
            index = _window_index(rows, geometry)
            y = rows_lib.multiply_rows(source, index, w, groups=geometry.groups)
            places = jnp.where(valid, rows, jnp.asarray(positions, jnp.int32))
            return out.at[places].set(y.astype(out.dtype), mode="drop", unique_indices=True)

        return fold_over_pieces(active.count, _sizes(geometry, x.dtype), piece, empty)

    out = lax.cond(active.count > 0, compute, lambda: empty)
    return out.reshape(geometry.batch, *geometry.output_size, geometry.outputs)


def active_input_gradient(
    cotangents: Array, w: Array, mask: Array, geometry: Geometry
) -> Float[Array, "N H W C"]:
    """Computes the gradient for x of any implementation, over active positions."""
    shape = (geometry.batch * math.prod(geometry.padded_size), geometry.channels)

    def piece(index, part, total):
        return rows_lib.add_source_gradient(total, w, index, part, groups=geometry.groups)

    total = jnp.zeros(shape, rows_lib.accumulator(w.dtype))
    total = _fold_over_active(cotangents, mask, geometry, piece, total)
    return unpadded_image(total.astype(w.dtype), geometry)


def active_weight_gradient(
    cotangents: Array, x: Array, mask: Array, geometry: Geometry
) -> Float[Array, "KH KW Cg O"]:
    """Computes the gradient for w of any implementation, over active positions."""
    source = padded_pixels(x, geometry)

    def piece(index, part, total):
        return rows_lib.add_weight_gradient(total, source, index, part, groups=geometry.groups)

    total = rows_lib.empty_weight_gradient(geometry.kernel_shape, x.dtype, geometry.groups)
    total = _fold_over_active(cotangents, mask, geometry, piece, total)
    return rows_lib.join_weights(total, geometry.kernel_shape).astype(x.dtype)


def _fold_over_active(
    cotangents: Array,
    mask: Array,
    geometry: Geometry,
    add: Callable[[Array, Array, Array], Array],
    total: Array,
) -> Array:
    """Folds `add(window rows, cotangents, total)` over pieces of the active positions."""
    flat = cotangents.reshape(-1, geometry.outputs)
    total = vary_over(varying_axes(cotangents), total)
    if is_empty(*mask.shape):
        return total
    active = list_active(mask)

    def compute():
        def piece(start, size, total):
            rows, valid = take_rows(active, start, size)
            part = flat.at[rows].get(mode="promise_in_bounds")
            part = jnp.where(valid[:, None], part, jnp.zeros((), part.dtype))
            return add(_window_index(rows, geometry), part, total)

        return fold_over_pieces(active.count, _sizes(geometry, flat.dtype), piece, total)

    return lax.cond(active.count > 0, compute, lambda: total)


def _window_index(rows: Array, geometry: Geometry) -> Array:
    """Returns the pixels that the taps of output positions read, int32[B, T]."""
    offsets = jnp.asarray(tap_offsets(geometry), jnp.int32)
    return window_rows(rows, geometry)[:, None] + offsets[None]


def _sizes(geometry: Geometry, dtype) -> tuple[int, ...]:
    depth = geometry.taps * geometry.channels // geometry.groups
    return piece_sizes(depth, element_bytes=jnp.dtype(dtype).itemsize)
