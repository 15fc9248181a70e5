"""Masked convolution for Hopper GPUs by tiles of positions: forward pass at listed positions."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from kernels._common.geometry import Geometry
from kernels._common.tile_conv import TILE, tile_conv


def forward(
    x: jax.Array,
    w: jax.Array,
    rows: jax.Array,
    count: jax.Array,
    geometry: Geometry,
    *,
    bias: jax.Array | None = None,
    activation: Literal["relu"] | None = None,
    residual: jax.Array | None = None,
    tile: None = None,
    interpret: Any = False,
) -> jax.Array:
    """Computes a convolution at active positions, in every tile of 64 positions that has one.

    Args:
        x: float[N, H, W, C], bfloat16 or float16, C a multiple of 64.
        w: float[KH, KW, C, O] of the same dtype, O a multiple of 64.
        rows: int32[R], n·H'·W' + y·W' + x of active output positions; ignored from `count` on.
        count: int32[], number of active positions.
        geometry: geometry of the convolution; strides 1, one group.
        bias: float[O].
        activation: None or "relu".
        residual: float[R, O], added before the activation.
        tile: must be None; the tile size of this kernel is fixed.
        interpret: True to run in Pallas' interpreter.

    Returns:
        float[R, O], 0 from `count` on.

    Raises:
        ValueError: `tile` is not None, or the activation is unknown.
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    if tile is not None:
        raise ValueError(f"tile is {tile}; expected None, since mosaic_gpu has a fixed tile size")
    if activation not in (None, "relu"):
        raise ValueError(f'activation is {activation!r}; expected None or "relu"')
    tiles = -(-geometry.batch * geometry.positions // TILE)
    valid = jnp.arange(rows.size, dtype=jnp.int32) < count
    touched = jnp.where(valid, rows // TILE, tiles)
    active = jnp.zeros(tiles, jnp.bool_).at[touched].set(True, mode="drop")
    slot = jnp.where(active, jnp.cumsum(active, dtype=jnp.int32) - 1, tiles)
    listed = jnp.zeros(tiles, jnp.int32)
    listed = listed.at[slot].set(jnp.arange(tiles, dtype=jnp.int32), mode="drop")
    number = jnp.sum(active, dtype=jnp.int32)
    y = tile_conv(x, w, listed, number, geometry, interpret=interpret)
    y = jnp.take(y, rows, axis=0, mode="clip").astype(jnp.float32)
    if bias is not None:
        y += bias.astype(jnp.float32)[None, :]
    if residual is not None:
        y += residual.astype(jnp.float32)
    if activation == "relu":
        y = jnp.maximum(y, 0.0)
    # Rows from `count` on are undefined.
    return jnp.where(valid[:, None], y, 0.0).astype(x.dtype)
