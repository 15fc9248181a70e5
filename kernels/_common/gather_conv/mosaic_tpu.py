"""Convolution at listed rows for TPUs, by asynchronous copies of window rows into VMEM.

Layout: pixels stay in HBM as rows of 128 32-bit words. A pixel is a whole number of rows, with
channels padded by zeros. Such an array is linear in memory, so any run of pixels is one contiguous
copy. Two bfloat16 values share a word: one from the first and one from the second half of a group's
channels, so that a shift or a mask of the words gives a whole operand; weights have the same order.
Strided loads over the window read a tile's windows tap by tap. float16, which the matrix unit does
not support, is computed in float32.

The copies of the next tile overlap with the products of the current one. Row indices are copied to
SMEM tile by tile, so only HBM limits their number; only the count is a prefetched scalar.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels._common.gather_conv import consecutive_runs, merge_runs
from kernels._common.target import current_target, require_platform
from kernels._common.tiling import (
    LANES,
    MEBIBYTE,
    Problem,
    TileConfig,
    choose_tile,
    padded_channels,
)

NAME = "mosaic_tpu"
_SUBLANES = 16  # rows of a bfloat16 tile; float32 needs 8
_DEFAULT_VMEM = 14 * MEBIBYTE
_LARGEST_VMEM = 60 * MEBIBYTE  # of 128 MiB on v5e and v6e, 64 MiB on v7x
_UNROLL = 8


def merge(pixels, w, taps, groups):
    """Merges the taps of a window row if that shortens the copies by at least a third."""
    runs = consecutive_runs(taps)
    length = runs[0][1]
    if groups > 1 or length == 1 or any(run[1] != length for run in runs):
        return pixels, w, taps
    padded = functools.partial(padded_channels, pixels.dtype.name)
    if 3 * padded(length * w.shape[1]) > 2 * length * padded(w.shape[1]):
        return pixels, w, taps
    return merge_runs(pixels, w, taps)


def run(
    pixels, w, rows, count, *, taps, bias, groups, activation, residual, tile, op, interpret
) -> jax.Array:
    """Runs the kernel of `gather_conv` on checked arguments with rows in bounds."""
    target = current_target() if interpret else require_platform("tpu", NAME)
    dtype = pixels.dtype
    if dtype == jnp.float16:
        pixels, w = pixels.astype(jnp.float32), w.astype(jnp.float32)
        bias = None if bias is None else bias.astype(jnp.float32)
        residual = None if residual is None else residual.astype(jnp.float32)
    size, outputs = rows.size, w.shape[2] // groups
    problem = Problem(pixels.dtype.name, size, len(taps), w.shape[1], outputs, groups)
    tile = choose_tile(
        problem, op=op, implementation=NAME, device_kind=target.device_kind, tile=tile
    )
    _check_tile(tile)
    plan = _make_plan(problem, taps, tile, activation, bias is not None, residual is not None)
    if plan.vmem_bytes > _LARGEST_VMEM:
        raise NotImplementedError(
            f"{NAME} needs {plan.vmem_bytes / MEBIBYTE:.0f} MiB of VMEM for {problem.key} with "
            f"{tile}; expected at most {_LARGEST_VMEM // MEBIBYTE} MiB"
        )
    inputs = [_pack_pixels(pixels, groups), _pack_weights(w, groups, plan.block_outputs)]
    padding = plan.tiles * tile.block_rows - size
    rows = jnp.pad(rows, (0, padding)).reshape(plan.tiles, 1, tile.block_rows)
    if bias is not None:
        inputs.append(_pad_outputs(bias[None], groups, plan))
    if residual is not None:
        inputs.append(_pad_outputs(jnp.pad(residual, ((0, padding), (0, 0))), groups, plan))
    # vmap over inputs in HBM does not lower to an additional grid axis, so it is sequential.
    call = jax.custom_batching.sequential_vmap(_call(plan, pixels.dtype, interpret))
    out = call(count.reshape(1), rows, rows, *inputs)
    out = out.reshape(out.shape[0], groups, -1)[:size, :, :outputs]
    return out.reshape(size, -1).astype(dtype)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Static sizes of one call; `words` is the number of 128-word rows per pixel and group."""

    runs: tuple[tuple[int, int, int], ...]  # index of the first tap, its offset, length
    taps: int
    groups: int
    words: int
    depth: int
    packed: bool
    tiles: int
    block_rows: int
    block_outputs: int
    blocks: int
    activation: str | None
    with_bias: bool
    with_residual: bool

    @property
    def pixel(self) -> int:
        """Returns the number of 128-word rows of a pixel."""
        return self.groups * self.words

    @property
    def window(self) -> int:
        """Returns the number of 128-word rows of a window."""
        return self.taps * self.pixel

    @property
    def vmem_bytes(self) -> int:
        """Estimates VMEM: double-buffered windows and blocks, the accumulator and one operand."""
        itemsize = 2 if self.packed else 4
        windows = 2 * self.block_rows * self.window * LANES * 4
        weights = 2 * self.taps * self.depth * self.block_outputs * itemsize
        out = (4 if self.with_residual else 2) * self.block_rows * self.block_outputs * itemsize
        values = self.block_rows * (self.block_outputs * 4 * 2 + self.depth * 4 * 2)
        return windows + weights + out + values


def _make_plan(problem: Problem, taps, tile: TileConfig, activation, with_bias, with_residual):
    depth = padded_channels(problem.dtype, problem.channels)
    packed = problem.dtype == "bfloat16"
    block_outputs = min(tile.block_outputs, -(-problem.outputs // LANES) * LANES)
    return _Plan(
        runs=tuple((first, taps[first], length) for first, length in consecutive_runs(taps)),
        taps=len(taps),
        groups=problem.groups,
        words=depth // LANES // (2 if packed else 1),
        depth=depth,
        packed=packed,
        tiles=-(-problem.rows // tile.block_rows),
        block_rows=tile.block_rows,
        block_outputs=block_outputs,
        blocks=-(-problem.outputs // block_outputs),
        activation=activation,
        with_bias=with_bias,
        with_residual=with_residual,
    )


def _pack_pixels(pixels, groups: int):
    """Packs pixels [M, C] to words [M · pixel, 128]."""
    size, channels = pixels.shape[0], pixels.shape[1] // groups
    depth = padded_channels(pixels.dtype.name, channels)
    pixels = pixels.reshape(size, groups, channels)
    if pixels.dtype == jnp.float32:
        pixels = jnp.pad(pixels, ((0, 0), (0, 0), (0, depth - channels)))
        return pixels.reshape(-1, LANES)
    low, high = _halves(pixels, 2, depth)
    low, high = (
        lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.uint32) for half in (low, high)
    )
    return (low | (high << jnp.uint32(16))).reshape(-1, LANES)


def _pack_weights(w, groups: int, block_outputs: int):
    """Reorders weights [T, C / groups, O] to [T, groups, depth, padded O / groups].

    Channels have the order of `_pack_pixels`.
    """
    taps, channels, outputs = w.shape
    depth = padded_channels(w.dtype.name, channels)
    w = w.reshape(taps, channels, groups, outputs // groups).transpose(0, 2, 1, 3)
    fill = -w.shape[3] % block_outputs
    w = jnp.pad(w, ((0, 0), (0, 0), (0, 0), (0, fill)))
    if w.dtype == jnp.float32:
        return jnp.pad(w, ((0, 0), (0, 0), (0, depth - channels), (0, 0)))
    return jnp.concatenate(_halves(w, 2, depth), axis=2)


def _halves(array, axis: int, depth: int):
    """Splits an axis in two halves, each padded with zeros to depth / 2."""
    half = -(-array.shape[axis] // 2)
    parts = []
    for start, stop in ((0, half), (half, array.shape[axis])):
        widths = [(0, 0)] * array.ndim
        widths[axis] = (0, depth // 2 - (stop - start))
        parts.append(jnp.pad(lax.slice_in_dim(array, start, stop, axis=axis), widths))
    return parts


def _pad_outputs(array, groups: int, plan: _Plan):
    """Pads [rows, O] to [rows, groups · blocks · block_outputs]."""
    array = array.reshape(array.shape[0], groups, -1)
    fill = plan.blocks * plan.block_outputs - array.shape[2]
    return jnp.pad(array, ((0, 0), (0, 0), (0, fill))).reshape(array.shape[0], -1)


def _call(plan: _Plan, dtype, interpret):
    rows, outputs, blocks = plan.block_rows, plan.block_outputs, plan.blocks

    def block_of(i, g, o, count):
        # Skipped tiles request the block that is already loaded, which avoids a copy.
        skipped = i * rows >= count[0]
        return (
            jnp.where(skipped, plan.groups - 1, g).astype(jnp.int32),
            jnp.where(skipped, blocks - 1, o).astype(jnp.int32),
        )

    def weights_index(i, g, o, count):
        g, o = block_of(i, g, o, count)
        return 0, g, 0, o

    def bias_index(i, g, o, count):
        g, o = block_of(i, g, o, count)
        return 0, g * blocks + o

    def out_index(i, g, o, count):
        return i, g * blocks + o

    def next_index(i, g, o, count):
        return jnp.minimum(i + 1, plan.tiles - 1), 0, 0

    in_specs = [
        pl.BlockSpec((1, 1, rows), lambda i, g, o, count: (i, 0, 0), memory_space=pltpu.SMEM),
        pl.BlockSpec((1, 1, rows), next_index, memory_space=pltpu.SMEM),
        pl.BlockSpec(memory_space=pl.ANY),
        pl.BlockSpec((plan.taps, None, plan.depth, outputs), weights_index),
    ]
    if plan.with_bias:
        in_specs.append(pl.BlockSpec((1, outputs), bias_index))
    if plan.with_residual:
        in_specs.append(pl.BlockSpec((rows, outputs), out_index))
    estimate = plan.vmem_bytes
    return pl.pallas_call(
        functools.partial(_kernel, plan=plan, unroll=1 if interpret else _UNROLL),
        out_shape=jax.ShapeDtypeStruct((plan.tiles * rows, plan.groups * blocks * outputs), dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(plan.tiles, plan.groups, blocks),
            in_specs=in_specs,
            out_specs=pl.BlockSpec((rows, outputs), out_index),
            scratch_shapes=[
                pltpu.VMEM(
                    (2, rows * plan.window, LANES), jnp.uint32 if plan.packed else jnp.float32
                ),
                pltpu.SemaphoreType.DMA((2,)),
            ],
        ),
        compiler_params=pltpu.CompilerParams(
            # Each tile starts the copies of the next one, so the grid must run in order.
            dimension_semantics=("arbitrary", "arbitrary", "arbitrary"),
            vmem_limit_bytes=estimate * 5 // 4 if estimate > _DEFAULT_VMEM * 4 // 5 else None,
        ),
        interpret=interpret,
        name="gather_conv",
    )


def _kernel(count_ref, rows_ref, next_ref, pixels_ref, w_ref, *refs, plan: _Plan, unroll: int):
    refs = list(refs)
    bias_ref = refs.pop(0) if plan.with_bias else None
    residual_ref = refs.pop(0) if plan.with_residual else None
    out_ref, windows_ref, semaphores = refs
    tile, group, block = pl.program_id(0), pl.program_id(1), pl.program_id(2)
    count = count_ref[0]
    active = tile * plan.block_rows < count
    slot = tile % 2

    def start_copies(tile_rows, slot):
        def start_row(_, r):
            # `r` is carried as int32, since the loop index is 64 bits wide with x64 enabled.
            for tap, offset, length in plan.runs:
                source = (tile_rows[0, 0, r] + offset) * plan.pixel
                target = (r * plan.taps + tap) * plan.pixel
                pltpu.make_async_copy(
                    pixels_ref.at[pl.ds(source, length * plan.pixel), :],
                    windows_ref.at[slot, pl.ds(target, length * plan.pixel), :],
                    semaphores.at[slot],
                ).start()
            return r + jnp.int32(1)

        lax.fori_loop(np.int32(0), np.int32(plan.block_rows), start_row, np.int32(0), unroll=unroll)

    @pl.when(jnp.logical_and(group == 0, block == 0))
    def _gather():
        @pl.when(jnp.logical_and(tile == 0, active))
        def _first():
            start_copies(rows_ref, slot)

        @pl.when((tile + 1) * plan.block_rows < count)
        def _next():
            start_copies(next_ref, (tile + 1) % 2)

        @pl.when(active)
        def _wait():
            # The semaphore counts bytes: one wait on the buffer covers all of its copies.
            pltpu.make_async_copy(
                windows_ref.at[slot], windows_ref.at[slot], semaphores.at[slot]
            ).wait()

    @pl.when(active)
    def _compute():
        total = jnp.zeros((plan.block_rows, plan.block_outputs), jnp.float32)
        for tap in range(plan.taps):
            window = _operand(windows_ref, slot, tap * plan.pixel + group * plan.words, plan)
            total += _dot(window, w_ref[tap])
        if bias_ref is not None:
            total += bias_ref[...].astype(jnp.float32)
        if residual_ref is not None:
            total += residual_ref[...].astype(jnp.float32)
        if plan.activation == "relu":
            total = jnp.maximum(total, 0.0)
        row = tile * plan.block_rows + lax.broadcasted_iota(jnp.int32, total.shape, 0)
        out_ref[...] = jnp.where(row < count, total, 0.0).astype(out_ref.dtype)

    @pl.when(jnp.logical_not(active))
    def _skip():
        out_ref[...] = jnp.zeros_like(out_ref)


def _operand(windows_ref, slot, first, plan: _Plan):
    """Loads the channels of one group at one tap: [block_rows, depth], low halves first."""
    words = [
        windows_ref[slot, pl.ds(first + s, plan.block_rows, plan.window), :]
        for s in range(plan.words)
    ]
    if not plan.packed:
        return jnp.concatenate(words, axis=1)
    low = [word << jnp.uint32(16) for word in words]
    high = [word & jnp.uint32(0xFFFF0000) for word in words]
    return jnp.concatenate(
        [lax.bitcast_convert_type(part, jnp.float32).astype(jnp.bfloat16) for part in low + high],
        axis=1,
    )


def _dot(a, b):
    # `default_matmul_precision` applies to float32 only; bfloat16 has one precision.
    precision = None if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return jnp.dot(a, b, preferred_element_type=jnp.float32, precision=precision)


def _check_tile(tile: TileConfig) -> None:
    if tile.block_rows % _SUBLANES:
        raise ValueError(f"block_rows is {tile.block_rows}; {NAME} needs a multiple of {_SUBLANES}")
    if tile.block_outputs % LANES:
        raise ValueError(
            f"block_outputs is {tile.block_outputs}; {NAME} needs a multiple of {LANES}"
        )
