"""Perforated convolution for Hopper GPUs, by tiles: values only, kept positions only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels._common.geometry import Geometry
from kernels._common.tile_conv import TILE, tile_conv


def forward(
    x: jax.Array,
    w: jax.Array,
    positions: np.ndarray,
    geometry: Geometry,
    *,
    bias: jax.Array | None = None,
    tile: None = None,
    interpret: Any = False,
) -> jax.Array:
    """Convolution at kept positions; every tile of 64 positions with a kept one is computed.

    Args:
        x: float[N, H, W, C], bfloat16 or float16, C a multiple of 64.
        w: float[KH, KW, C, O] of the same dtype, O a multiple of 64.
        positions: int32[P], NumPy, y·W' + x of the kept output positions.
        geometry: sizes, padding; strides 1, one group.
        bias: float[O].
        tile: None; this kernel has one size of tile.
        interpret: True to run in Pallas' interpreter.

    Returns:
        float[N, P, O].

    Raises:
        ValueError: a tile is given.
        NotImplementedError: not for these inputs, or not on this machine.
    """
    if tile is not None:
        raise ValueError(f"tile is {tile}; mosaic_gpu has one size of tile, expected None")
    images = np.arange(geometry.batch, dtype=np.int64)[:, None] * geometry.positions
    rows = (images + np.asarray(positions, np.int64)[None, :]).astype(np.int32).reshape(-1)
    tiles = np.unique(rows // TILE)
    y = tile_conv(x, w, jnp.asarray(tiles), jnp.int32(tiles.size), geometry, interpret=interpret)
    y = jnp.take(y, jnp.asarray(rows), axis=0, mode="clip").astype(jnp.float32)
    if bias is not None:
        y += bias.astype(jnp.float32)[None, :]
    return y.astype(x.dtype).reshape(geometry.batch, len(positions), geometry.outputs)
