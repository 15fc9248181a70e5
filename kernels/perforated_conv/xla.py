"""Perforated convolution in XLA operations: every platform, differentiable, optimised for CPU."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels._common import rows as rows_lib
from kernels._common.arrays import vary_over, varying_axes
from kernels._common.geometry import Geometry
from kernels._common.trilinear import convolve
from kernels._common.windows import padded_pixels, tap_offsets, unpadded_image, window_rows
from kernels.dense_conv import direct
from kernels.perforated_conv import cost
from kernels.perforated_conv.compact import dense_positions, window_table
from kernels.perforated_conv.plan import Plan

ExecutionPath = Literal["strided", "gathered", "dense"]


def cheapest_path(geometry: Geometry, plan: Plan) -> ExecutionPath:
    """Chooses between a strided convolution (regular grids) and products of gathered rows."""
    strided = cost.strided(geometry, plan)
    if strided is None or cost.gathered(geometry, plan) < strided:
        return "gathered"
    return "strided"


def dense_compact(x: Array, w: Array, geometry: Geometry, plan: Plan) -> Float[Array, "N P O"]:
    """Computes every position and gathers the kept ones."""
    y = direct(x, w, strides=geometry.strides, padding=geometry.padding, groups=geometry.groups)
    return dense_positions(y, plan)


def strided_compact(x: Array, w: Array, geometry: Geometry, plan: Plan) -> Float[Array, "N P O"]:
    """Computes a regular grid by a convolution with larger strides and shifted padding."""
    assert plan.grid is not None
    strides, padding, inside = [], [], []
    for axis in range(2):
        step = plan.grid.step[axis] * geometry.strides[axis]
        before = geometry.padding[axis][0] - plan.grid.start[axis] * geometry.strides[axis]
        reach = (plan.grid.count[axis] - 1) * step + geometry.window[axis]
        after = reach - before - geometry.size[axis]
        # Cropped explicitly: XLA of JAX 0.11 gives wrong results for negative padding on a CPU.
        inside.append(slice(max(-before, 0), geometry.size[axis] - max(-after, 0)))
        padding.append((max(before, 0), max(after, 0)))
        strides.append(step)
    y = direct(
        x[:, inside[0], inside[1]],
        w,
        strides=(strides[0], strides[1]),
        padding=(padding[0], padding[1]),
        groups=geometry.groups,
    )
    return y.reshape(geometry.batch, plan.kept, geometry.outputs)


def gathered_compact(x: Array, w: Array, geometry: Geometry, plan: Plan) -> Float[Array, "N P O"]:
    """Computes any mask by products of gathered rows, piece by piece."""
    source = padded_pixels(x, geometry)
    expand = _image_rows(geometry, plan.positions)
    y = rows_lib.convolve_rows(
        source, w, geometry.batch * plan.kept, expand, groups=geometry.groups
    )
    return y.astype(x.dtype).reshape(geometry.batch, plan.kept, geometry.outputs)


_PATHS = {"strided": strided_compact, "gathered": gathered_compact, "dense": dense_compact}


def compact(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    geometry: Geometry,
    plan: Plan,
    path: ExecutionPath,
) -> Float[Array, "N P O"]:
    """Computes the kept positions by one execution path; differentiable.

    Gradients use products of gathered rows if those are faster than XLA's convolution gradients.

    Args:
        x: input.
        w: weights.
        geometry: geometry of the convolution.
        plan: kept positions.
        path: execution path of the forward pass.
    """
    by_rows = path == "gathered" or cost.gradients_by_rows(geometry, plan)
    if path == "dense" and not by_rows:
        return dense_compact(x, w, geometry, plan)
    return convolve(PerforatedConvolution(geometry, plan, path, by_rows), x, w)


@dataclasses.dataclass(frozen=True)
class PerforatedConvolution:
    """Perforated convolution as a `TrilinearForm`: values and gradients at kept positions.

    Attributes:
        geometry: geometry of the convolution.
        plan: kept positions.
        path: execution path of the values.
        gradients_by_rows: whether gradients are products of gathered rows, else those of the path.
    """

    geometry: Geometry
    plan: Plan
    path: ExecutionPath = "gathered"
    gradients_by_rows: bool = True

    def y(self, x: Array, w: Array) -> Float[Array, "N P O"]:
        """Computes the compact output."""
        return _PATHS[self.path](x, w, self.geometry, self.plan)

    def x(self, y: Array, w: Array) -> Float[Array, "N H W C"]:
        """Computes the gradient for x of a compact output with cotangents y."""
        geometry = self.geometry
        if not self.gradients_by_rows:
            x = jnp.zeros((geometry.batch, *geometry.size, geometry.channels), y.dtype)
            return jax.vjp(lambda x: self.y(x, w), vary_over(varying_axes(y), x))[1](y)[0]
        d_source = rows_lib.rows_source_gradient(
            y.reshape(-1, geometry.outputs),
            w,
            geometry.batch * math.prod(geometry.padded_size),
            _image_rows(geometry, self.plan.positions),
            groups=geometry.groups,
        )
        return unpadded_image(d_source, geometry)

    def w(self, y: Array, x: Array) -> Float[Array, "KH KW Cg O"]:
        """Computes the gradient for w of a compact output with cotangents y."""
        geometry = self.geometry
        if not self.gradients_by_rows:
            w = jnp.zeros(geometry.kernel_shape, y.dtype)
            return jax.vjp(lambda w: self.y(x, w), vary_over(varying_axes(y), w))[1](y)[0]
        return rows_lib.rows_weight_gradient(
            y.reshape(-1, geometry.outputs),
            padded_pixels(x, geometry),
            geometry.kernel_shape,
            _image_rows(geometry, self.plan.positions),
            groups=geometry.groups,
        )


def _image_rows(geometry: Geometry, positions: np.ndarray) -> rows_lib.Expand:
    first = window_rows(positions.astype(np.int64), geometry).astype(np.int32)
    offsets = np.asarray(tap_offsets(geometry), np.int32)
    pixels = geometry.padded_size[0] * geometry.padded_size[1]
    kept = len(positions)

    def expand(numbers):
        image, position = jnp.divmod(numbers, jnp.int32(kept))
        starts = image * jnp.int32(pixels) + jnp.asarray(first)[position]
        return starts[:, None] + jnp.asarray(offsets)[None]

    return expand


def compact_to_compact(
    values: Float[Array, "N S C"],
    w: Float[Array, "KH KW Cg O"],
    geometry: Geometry,
    source_plan: Plan,
    plan: Plan,
) -> Float[Array, "N P O"]:
    """Convolves a compact map and computes the kept positions of the output.

    Args:
        values: float[N, S, C], kept positions of the input.
        w: float[KH, KW, C / groups, O].
        geometry: geometry of the convolution on the filled map.
        source_plan: plan of the input.
        plan: plan of the output.
    """
    table, _ = window_table(source_plan, geometry.window, geometry.strides, geometry.padding)
    table = table[plan.positions]
    if geometry.pointwise and np.array_equal(table.ravel(), np.arange(source_plan.kept)):
        return _pointwise(values, w, geometry.groups)
    return convolve(_CompactConvolution(geometry, _Table(table, source_plan.kept)), values, w)


class _Table:
    """Static index array, compared and hashed by content."""

    def __init__(self, index: np.ndarray, sources: int) -> None:
        self.index, self.sources = index, sources
        self.reads_padding = bool((index == sources).any())
        self._key = (index.shape, sources, index.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Table) and self._key == other._key

    def rows(self, batch: int) -> rows_lib.Expand:
        """Returns the map from positions to rows of the flattened values; the last is padding."""
        kept, border = len(self.index), jnp.asarray(batch * self.sources, jnp.int32)

        def expand(numbers):
            image, position = jnp.divmod(numbers, jnp.int32(kept))
            taps = jnp.asarray(self.index)[position]
            rows = image[:, None] * jnp.int32(self.sources) + taps
            if self.reads_padding:
                rows = jnp.where(taps == self.sources, border, rows)
            return rows

        return expand

    def source(self, values: Array) -> Array:
        """Flattens values and appends a row of zeros if a tap reads padding."""
        flat = values.reshape(-1, values.shape[2])
        return jnp.pad(flat, ((0, 1), (0, 0))) if self.reads_padding else flat


@dataclasses.dataclass(frozen=True)
class _CompactConvolution:
    """Convolution of a compact map as a `TrilinearForm`; x are the values at its kept positions."""

    geometry: Geometry
    table: _Table

    def y(self, x: Array, w: Array) -> Float[Array, "N P O"]:
        geometry, table = self.geometry, self.table
        n, kept = geometry.batch, len(table.index)
        rows = rows_lib.convolve_rows(
            table.source(x), w, n * kept, table.rows(n), groups=geometry.groups
        )
        return rows.astype(x.dtype).reshape(n, kept, geometry.outputs)

    def x(self, y: Array, w: Array) -> Float[Array, "N S C"]:
        geometry, table = self.geometry, self.table
        count = geometry.batch * table.sources
        d_source = rows_lib.rows_source_gradient(
            y.reshape(-1, geometry.outputs),
            w,
            count + table.reads_padding,
            table.rows(geometry.batch),
            groups=geometry.groups,
        )
        return d_source[:count].reshape(geometry.batch, table.sources, geometry.channels)

    def w(self, y: Array, x: Array) -> Float[Array, "KH KW Cg O"]:
        geometry, table = self.geometry, self.table
        return rows_lib.rows_weight_gradient(
            y.reshape(-1, geometry.outputs),
            table.source(x),
            geometry.kernel_shape,
            table.rows(geometry.batch),
            groups=geometry.groups,
        )


def _pointwise(values: Array, w: Array, groups: int) -> Array:
    n, kept, _ = values.shape
    row = values.reshape(n, 1, kept, -1)
    y = direct(row, w, strides=(1, 1), padding=((0, 0), (0, 0)), groups=groups)
    return y.reshape(n, kept, -1)
