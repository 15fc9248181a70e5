"""Perforated convolution in XLA operations: every platform, differentiable, optimised for CPU."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels._common import rows as rows_lib
from kernels._common.convolution import direct, direct_by_group
from kernels._common.geometry import Geometry
from kernels._common.windows import padded_pixels, tap_offsets, unpadded_image, window_rows
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
    y = direct_by_group(
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def compact(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    geometry: Geometry,
    plan: Plan,
    path: ExecutionPath,
) -> Float[Array, "N P O"]:
    """Computes the kept positions by one execution path.

    Gradients use products of gathered rows if those are faster than XLA's convolution gradients.

    Args:
        x: input.
        w: weights.
        geometry: geometry of the convolution.
        plan: kept positions.
        path: execution path of the forward pass.
    """
    return _PATHS[path](x, w, geometry, plan)


def _compact_forward(x, w, geometry, plan, path):
    return compact(x, w, geometry, plan, path), (x, w)


def _compact_backward(geometry, plan, path, residuals, cotangents):
    x, w = residuals
    if path == "gathered" or cost.gradients_by_rows(geometry, plan):
        return compact_gradients(x, w, cotangents, geometry, plan.positions)
    return jax.vjp(lambda x, w: _PATHS[path](x, w, geometry, plan), x, w)[1](cotangents)


compact.defvjp(_compact_forward, _compact_backward)


def compact_gradients(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    cotangents: Float[Array, "N P O"],
    geometry: Geometry,
    positions: np.ndarray,
) -> tuple[Array, Array]:
    """Computes the gradients for x and w of any implementation's compact output.

    Args:
        x: input.
        w: weights.
        cotangents: float[N, P, O], cotangents of the compact output.
        geometry: geometry of the convolution.
        positions: int32[P], kept positions.
    """
    source = padded_pixels(x, geometry)
    d_source, d_w = rows_lib.differentiate_rows(
        source,
        w,
        cotangents.reshape(-1, geometry.outputs),
        _image_rows(geometry, positions),
        groups=geometry.groups,
    )
    return unpadded_image(d_source, geometry), d_w


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
    return _compact_rows(values, w, geometry, _Table(table, source_plan.kept))


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
        kept, border = len(self.index), batch * self.sources

        def expand(numbers):
            image, position = jnp.divmod(numbers, jnp.int32(kept))
            taps = jnp.asarray(self.index)[position]
            rows = image[:, None] * jnp.int32(self.sources) + taps
            if self.reads_padding:
                rows = jnp.where(taps == self.sources, jnp.int32(border), rows)
            return rows

        return expand

    def source(self, values: Array) -> Array:
        """Flattens values and appends a row of zeros if a tap reads padding."""
        flat = values.reshape(-1, values.shape[2])
        return jnp.pad(flat, ((0, 1), (0, 0))) if self.reads_padding else flat


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _compact_rows(values: Array, w: Array, geometry: Geometry, table: _Table) -> Array:
    n, kept = geometry.batch, len(table.index)
    y = rows_lib.convolve_rows(
        table.source(values), w, n * kept, table.rows(n), groups=geometry.groups
    )
    return y.astype(values.dtype).reshape(n, kept, geometry.outputs)


def _compact_rows_forward(values, w, geometry, table):
    return _compact_rows(values, w, geometry, table), (values, w)


def _compact_rows_backward(geometry, table, residuals, cotangents):
    values, w = residuals
    d_source, d_w = rows_lib.differentiate_rows(
        table.source(values),
        w,
        cotangents.reshape(-1, geometry.outputs),
        table.rows(geometry.batch),
        groups=geometry.groups,
    )
    return d_source[: geometry.batch * table.sources].reshape(values.shape), d_w


_compact_rows.defvjp(_compact_rows_forward, _compact_rows_backward)


def _pointwise(values: Array, w: Array, groups: int) -> Array:
    n, kept, _ = values.shape
    row = values.reshape(n, 1, kept, -1)
    y = direct(row, w, strides=(1, 1), padding=((0, 0), (0, 0)), groups=groups)
    return y.reshape(n, kept, -1)
