"""Convolution at listed tiles of positions for Hopper GPUs, in Mosaic GPU.

A tile is 64 consecutive output positions (n·H'·W' + y·W' + x), all of which are computed. For one
kernel tap and 64 channels, a hardware im2col copy (TMA) loads the pixels of all 64 windows to
shared memory, including padding and row ends; warpgroup products (wgmma) accumulate in float32. A
tile with one active position costs as much as a full one, so active positions should be clustered.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels._common.geometry import Geometry
from kernels._common.target import require_platform

NAME = "mosaic_gpu"
TILE = 64
"""Output positions per tile: the rows of one warpgroup product."""
_CHANNELS = 64  # channels per step: 128 bytes, the widest swizzle
_SLOTS = 4  # stages of the copy pipeline
_HOPPER = re.compile(r"\b(H100|H200|GH200|H800|H20)\b")


def require(x, geometry: Geometry, *, interpret: Any = False) -> None:
    """Checks that the kernel supports the target device and the inputs.

    Raises:
        NotImplementedError: it does not; the message states the requirement.
    """
    if not hasattr(plgpu, "im2col_ref"):
        raise NotImplementedError(
            f"{NAME} needs JAX 0.12 or later (im2col copies); this is {jax.__version__}"
        )
    if not interpret:
        kind = require_platform("gpu", NAME).device_kind
        if not _HOPPER.search(kind):
            raise NotImplementedError(f"{NAME} needs a Hopper GPU; the device is {kind!r}")
    if x.dtype.name not in ("bfloat16", "float16"):
        raise NotImplementedError(f"{NAME} needs bfloat16 or float16; x has dtype {x.dtype}")
    if geometry.strides != (1, 1) or geometry.groups != 1:
        raise NotImplementedError(
            f"{NAME} needs strides (1, 1) and one group; got strides {geometry.strides} and "
            f"{geometry.groups} groups"
        )
    if geometry.channels % _CHANNELS or geometry.outputs % 64:
        raise NotImplementedError(
            f"{NAME} needs multiples of 64 channels; got {geometry.channels} input and "
            f"{geometry.outputs} output channels"
        )
    if max(geometry.window) > 16 or max(map(max, geometry.padding)) > 15:
        raise NotImplementedError(
            f"{NAME} needs a window of at most 16 and padding of at most 15; got window "
            f"{geometry.window} and padding {geometry.padding}"
        )


def tile_conv(
    x: jax.Array,
    w: jax.Array,
    tiles: jax.Array,
    count: jax.Array,
    geometry: Geometry,
    *,
    interpret: Any = False,
) -> jax.Array:
    """Computes a convolution at the positions of listed tiles.

    Args:
        x: [N, H, W, C], bfloat16 or float16.
        w: [KH, KW, C, O] of the same dtype.
        tiles: int32[T], tile indices; entries from `count` on are ignored.
        count: int32[], number of tiles computed.
        geometry: geometry of the convolution.
        interpret: whether to run in Pallas' interpreter. It does not support im2col copies, so the
            im2col array is materialised first and copied plainly.

    Returns:
        [number of positions rounded up to whole tiles, O]; undefined in tiles that are not listed.

    Raises:
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    require(x, geometry, interpret=interpret)
    positions = geometry.batch * geometry.positions
    size = -(-positions // TILE) * TILE
    if not tiles.size or not positions:
        return jnp.zeros((size, geometry.outputs), x.dtype)
    block = 128 if geometry.outputs % 128 == 0 else 64
    call = plgpu.kernel(
        functools.partial(_kernel, geometry=geometry, block=block, view=not interpret),
        out_type=jax.ShapeDtypeStruct((size, geometry.outputs), x.dtype),
        grid=(tiles.size, geometry.outputs // block),
        grid_names=("tile", "outputs"),
        scratch_types=[
            _operand((_SLOTS, TILE, _CHANNELS), x.dtype),
            _operand((_SLOTS, _CHANNELS, block), x.dtype),
            _operand((TILE, block), x.dtype),
            plgpu.Barrier(num_arrivals=2, num_barriers=_SLOTS),
        ],
        # Only lane semantics support im2col copies.
        compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane),
        interpret=plgpu.InterpretGPUParams() if interpret else None,
    )
    if interpret:
        x = _windows(x, geometry, size)
    call = jax.custom_batching.sequential_vmap(call)
    flat = w.reshape(-1, geometry.outputs)
    return call(tiles.astype(jnp.int32), count.astype(jnp.int32).reshape(1), x, flat)


def _operand(shape, dtype):
    tiling = plgpu.TilingTransform((8, 64))  # pyright: ignore[reportAbstractUsage]
    swizzle = plgpu.SwizzleTransform(128)  # pyright: ignore[reportAbstractUsage]
    return plgpu.SMEM(shape, dtype, transforms=(tiling, swizzle))


def _kernel(
    tiles_ref,
    count_ref,
    x_ref,
    w_ref,
    out_ref,
    windows_smem,
    weights_smem,
    out_smem,
    barriers,
    *,
    geometry: Geometry,
    block: int,
    view: bool,
):
    index, output = lax.axis_index("tile"), lax.axis_index("outputs")
    blocks = geometry.channels // _CHANNELS
    steps = geometry.taps * blocks
    width = geometry.window[1]
    columns = pl.ds(output * block, block)
    if view:
        x_ref = plgpu.im2col_ref(x_ref, window_shape=geometry.window, padding=geometry.padding)

    @pl.when(index < count_ref[0])
    def _compute():
        rows = pl.ds(tiles_ref[index] * TILE, TILE)

        def fetch(step, slot):
            # A step covers one tap and one block of channels.
            tap, part = lax.div(step, jnp.int32(blocks)), lax.rem(step, jnp.int32(blocks))
            i, j = lax.div(tap, jnp.int32(width)), lax.rem(tap, jnp.int32(width))
            plgpu.copy_gmem_to_smem(
                x_ref.at[rows, i, j, pl.ds(part * _CHANNELS, _CHANNELS)],
                windows_smem.at[slot],
                barriers.at[slot],
            )
            plgpu.copy_gmem_to_smem(
                w_ref.at[pl.ds(step * _CHANNELS, _CHANNELS), columns],
                weights_smem.at[slot],
                barriers.at[slot],
            )

        for step in range(min(_SLOTS - 1, steps)):
            fetch(jnp.int32(step), step)

        def multiply(total_ref):
            def advance(_, step):
                slot = lax.rem(step, jnp.int32(_SLOTS))
                plgpu.barrier_wait(barriers.at[slot])
                plgpu.wgmma(total_ref, windows_smem.at[slot], weights_smem.at[slot])
                plgpu.wgmma_wait(0)
                later = step + jnp.int32(_SLOTS - 1)

                @pl.when(later < steps)
                def _fetch():
                    fetch(later, lax.rem(later, jnp.int32(_SLOTS)))

                return step + jnp.int32(1)

            lax.fori_loop(np.int32(0), np.int32(steps), advance, jnp.int32(0))
            return total_ref[...]

        total = pl.run_scoped(multiply, plgpu.ACC((TILE, block), jnp.float32))  # pyright: ignore
        out_smem[...] = total.astype(out_ref.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(out_smem, out_ref.at[rows, columns])
        plgpu.wait_smem_to_gmem(0)


def _windows(x, geometry: Geometry, size: int):
    """Materialises the im2col view: [size, KH, KW, C], zero beyond the last position."""
    height, width = geometry.output_size
    x = jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    parts = [
        x[:, i : i + height, j : j + width]
        for i in range(geometry.window[0])
        for j in range(geometry.window[1])
    ]
    windows = jnp.stack(parts, axis=3).reshape(-1, *geometry.window, geometry.channels)
    return jnp.pad(windows, ((0, size - windows.shape[0]), (0, 0), (0, 0), (0, 0)))
