"""Perforated convolution for Hopper GPUs by tiles of positions: compact forward pass."""

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
    """Computes a convolution at kept positions, in every tile of 64 positions that has one.

    Args:
        x: float[N, H, W, C], bfloat16 or float16, C a multiple of 64.
        w: float[KH, KW, C, O] of the same dtype, O a multiple of 64.
        positions: int32[P], NumPy, y·W' + x of the kept output positions.
        geometry: geometry of the convolution; strides 1, one group.
        bias: float[O].
        tile: must be None; the tile size of this kernel is fixed.
        interpret: True to run in Pallas' interpreter.

    Returns:
        float[N, P, O].

    Raises:
        ValueError: `tile` is not None.
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    if tile is not None:
        raise ValueError(f"tile is {tile}; expected None, since mosaic_gpu has a fixed tile size")
    images = np.arange(geometry.batch, dtype=np.int64)[:, None] * geometry.positions
    rows = (images + np.asarray(positions, np.int64)[None, :]).astype(np.int32).reshape(-1)
    tiles = np.unique(rows // TILE)
    y = tile_conv(x, w, jnp.asarray(tiles), jnp.int32(tiles.size), geometry, interpret=interpret)
    y = jnp.take(y, jnp.asarray(rows), axis=0, mode="clip").astype(jnp.float32)
    if bias is not None:
        y += bias.astype(jnp.float32)[None, :]
    return y.astype(x.dtype).reshape(geometry.batch, len(positions), geometry.outputs)
