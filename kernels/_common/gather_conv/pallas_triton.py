"""Convolution at listed rows for CUDA devices, by the Triton backend of Pallas.

JAX has deprecated this backend; it works from 0.11.2 to 0.12. It gathers rows by masked loads on
every CUDA device. Only this module depends on it.
"""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from kernels._common.gather_conv import consecutive_runs, merge_runs
from kernels._common.target import current_target, require_platform
from kernels._common.tiling import Problem, TileConfig, choose_tile

NAME = "pallas_triton"
_SMALLEST = 16  # minimum side of a tensor-core operand
_MERGED_CHANNELS = 32


def merge(pixels, w, taps, groups):
    """Merges the taps of a window row if one tap has too few channels for a tensor core."""
    if groups > 1 or w.shape[1] > _MERGED_CHANNELS:
        return pixels, w, taps
    return merge_runs(pixels, w, taps)


def run(
    pixels, w, rows, count, *, taps, bias, groups, activation, residual, tile, op, interpret
) -> jax.Array:
    """Runs the kernel of `gather_conv` on checked arguments with rows in bounds."""
    target = current_target() if interpret else require_platform("gpu", NAME)
    size, outputs = rows.size, w.shape[2] // groups
    if pixels.size >= 2**31 or w.size >= 2**31 or size * w.shape[2] >= 2**31:
        raise NotImplementedError(
            f"{NAME} needs arrays of fewer than 2^31 elements; pixels has shape {pixels.shape}, w "
            f"{w.shape}, the output {(size, w.shape[2])}"
        )
    problem = Problem(pixels.dtype.name, size, len(taps), w.shape[1], outputs, groups)
    tile = choose_tile(
        problem, op=op, implementation=NAME, device_kind=target.device_kind, tile=tile
    )
    _check_tile(tile)
    # JAX warns at lowering time, outside this function, so the filter cannot be local.
    warnings.filterwarnings(
        "ignore", r"The Pallas Triton backend is deprecated", DeprecationWarning
    )
    blocks = -(-outputs // tile.block_outputs)
    inputs = [count.reshape(1), rows, pixels, w.reshape(-1, w.shape[2])]
    inputs += [array for array in (bias, residual) if array is not None]
    return pl.pallas_call(
        functools.partial(
            _kernel,
            tile=tile,
            grids=_tap_grids(taps),
            sizes=(size, w.shape[1], outputs),
            blocks=blocks,
            activation=activation,
            with_bias=bias is not None,
            with_residual=residual is not None,
        ),
        out_shape=jax.ShapeDtypeStruct((size, w.shape[2]), pixels.dtype),
        grid=(-(-size // tile.block_rows) * blocks, groups),
        compiler_params=plt.CompilerParams(num_warps=tile.num_warps, num_stages=tile.num_stages),
        interpret=interpret,
        name="gather_conv",
    )(*inputs)


def _kernel(
    count_ref,
    rows_ref,
    pixels_ref,
    w_ref,
    *refs,
    tile: TileConfig,
    grids: list[_TapGrid],
    sizes: tuple[int, int, int],
    blocks: int,
    activation: str | None,
    with_bias: bool,
    with_residual: bool,
):
    size, channels, outputs = sizes
    refs = list(refs)
    bias_ref = refs.pop(0) if with_bias else None
    residual_ref = refs.pop(0) if with_residual else None
    [out_ref] = refs
    # Programs that read the same pixels are consecutive.
    program, group = pl.program_id(0), pl.program_id(1)
    # lax.div, since floor division (`//`) does not lower here.
    first = lax.div(program, jnp.int32(blocks)) * tile.block_rows
    count = count_ref[0]

    row = first + lax.broadcasted_iota(jnp.int32, (tile.block_rows,), 0)
    column = lax.rem(program, jnp.int32(blocks)) * tile.block_outputs + lax.broadcasted_iota(
        jnp.int32, (tile.block_outputs,), 0
    )
    in_group = column < outputs
    column = group * outputs + column
    inside = (row < size)[:, None] & in_group[None, :]
    active = row < count

    def store(value):
        plt.store(
            out_ref.at[row[:, None], column[None, :]], value.astype(out_ref.dtype), mask=inside
        )

    @pl.when(first < count)
    def _compute():
        pixel = plt.load(rows_ref.at[row], mask=active, other=0)
        steps = -(-channels // tile.block_channels)

        def step(index, total, grid: _TapGrid):
            # A step covers one tap and one block of channels. The tap's offset is computed, since a
            # loaded offset would prevent Triton from pipelining the loads.
            index = index.astype(jnp.int32)  # 64 bits wide with x64 enabled
            tap, block = lax.div(index, jnp.int32(steps)), lax.rem(index, jnp.int32(steps))
            offset = lax.div(tap, jnp.int32(grid.width)) * jnp.int32(grid.stride)
            offset += lax.rem(tap, jnp.int32(grid.width)) + jnp.int32(grid.offset)
            channel = block * tile.block_channels + lax.broadcasted_iota(
                jnp.int32, (tile.block_channels,), 0
            )
            some = channel < channels
            window = plt.load(
                pixels_ref.at[(pixel + offset)[:, None], (group * channels + channel)[None, :]],
                mask=active[:, None] & some[None, :],
                other=0.0,
            )
            weights = plt.load(
                w_ref.at[((grid.first + tap) * channels + channel)[:, None], column[None, :]],
                mask=some[:, None] & in_group[None, :],
                other=0.0,
            )
            return total + _dot(window, weights)

        total = jnp.zeros((tile.block_rows, tile.block_outputs), jnp.float32)
        for grid in grids:
            total = lax.fori_loop(
                np.int32(0),
                np.int32(grid.count * steps),
                functools.partial(step, grid=grid),
                total,
            )
        if bias_ref is not None:
            some_bias = plt.load(bias_ref.at[column], mask=in_group, other=0.0)
            total += some_bias.astype(jnp.float32)[None, :]
        if residual_ref is not None:
            total += plt.load(
                residual_ref.at[row[:, None], column[None, :]], mask=inside, other=0.0
            ).astype(jnp.float32)
        if activation == "relu":
            total = jnp.maximum(total, 0.0)
        store(jnp.where(active[:, None], total, 0.0))

    @pl.when(first >= count)
    def _skip():
        store(jnp.zeros((tile.block_rows, tile.block_outputs), jnp.float32))


class _TapGrid(NamedTuple):
    """Taps that form a grid, in order: offset + i·stride + j for j < width."""

    first: int
    count: int
    offset: int
    stride: int
    width: int


def _tap_grids(taps: tuple[int, ...]) -> list[_TapGrid]:
    """Returns one grid if the taps form a rectangular window, else one grid per tap."""
    width = consecutive_runs(taps)[0][1]
    stride = taps[width] - taps[0] if len(taps) > width else 0
    grid = tuple(taps[0] + (t // width) * stride + t % width for t in range(len(taps)))
    if grid == taps:
        return [_TapGrid(0, len(taps), taps[0], stride, width)]
    return [_TapGrid(t, 1, offset, 0, 1) for t, offset in enumerate(taps)]


def _dot(a, b):
    # `default_matmul_precision` applies to float32 only; narrower dtypes have one precision.
    precision = None if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return jnp.dot(a, b, preferred_element_type=jnp.float32, precision=precision)


def _check_tile(tile: TileConfig) -> None:
    for name in ("block_rows", "block_outputs", "block_channels"):
        value = getattr(tile, name)
        if value < _SMALLEST or value & (value - 1):
            raise ValueError(
                f"{name} is {value}; {NAME} needs a power of two, at least {_SMALLEST}"
            )
    if tile.num_warps & (tile.num_warps - 1):
        raise ValueError(f"num_warps is {tile.num_warps}; {NAME} needs a power of two")
