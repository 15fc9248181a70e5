"""Forward passes of both operations on top of `gather_conv`, shared by its backends."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from kernels._common.gather_conv import gather_conv
from kernels._common.geometry import Geometry
from kernels._common.tiling import TileConfig
from kernels._common.windows import (
    check_rows_fit,
    flat_weights,
    padded_pixels,
    tap_offsets,
    window_rows,
)

Implementation = Literal["pallas_triton", "mosaic_tpu"]


def perforated_forward(
    x: jax.Array,
    w: jax.Array,
    positions: np.ndarray,
    geometry: Geometry,
    *,
    implementation: Implementation,
    bias: jax.Array | None = None,
    tile: TileConfig | None = None,
    interpret: Any = False,
) -> jax.Array:
    """Computes a convolution at kept positions that all images share.

    Args:
        x: float[N, H, W, C], float32, bfloat16 or float16.
        w: float[KH, KW, C / groups, O] of the same dtype.
        positions: int32[P], NumPy, y·W' + x of the kept output positions.
        geometry: geometry of the convolution.
        implementation: name of the kernel.
        bias: float[O].
        tile: tile sizes; None for the tuned tile, else the heuristic's.
        interpret: True or Pallas' interpreter parameters, to run without the device.

    Returns:
        float[N, P, O].

    Raises:
        ValueError: shapes or dtypes of the arguments are inconsistent.
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    check_rows_fit(geometry)
    positions = np.asarray(positions)
    if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(
            f"positions is {positions.dtype}{list(positions.shape)}; expected int32[P]"
        )
    if positions.size and not 0 <= positions.min() <= positions.max() < geometry.positions:
        raise ValueError(
            f"positions has values from {positions.min()} to {positions.max()}; expected 0 to "
            f"{geometry.positions - 1}"
        )
    first = window_rows(positions.astype(np.int64), geometry).astype(np.int32)
    size = geometry.padded_size[0] * geometry.padded_size[1]
    image = jnp.arange(geometry.batch, dtype=jnp.int32) * jnp.int32(size)
    out = gather_conv(
        padded_pixels(x, geometry),
        flat_weights(w),
        (image[:, None] + jnp.asarray(first)[None, :]).reshape(-1),
        taps=tap_offsets(geometry),
        bias=bias,
        groups=geometry.groups,
        tile=tile,
        implementation=implementation,
        op="perforated_conv",
        interpret=interpret,
    )
    return out.reshape(geometry.batch, positions.size, geometry.outputs)


def masked_forward(
    x: jax.Array,
    w: jax.Array,
    rows: jax.Array,
    count: jax.Array,
    geometry: Geometry,
    *,
    implementation: Implementation,
    bias: jax.Array | None = None,
    activation: Literal["relu"] | None = None,
    residual: jax.Array | None = None,
    tile: TileConfig | None = None,
    interpret: Any = False,
) -> jax.Array:
    """Computes a convolution at the first `count` of the listed positions.

    Args:
        x: float[N, H, W, C], float32, bfloat16 or float16.
        w: float[KH, KW, C / groups, O] of the same dtype.
        rows: int32[R], n·H'·W' + y·W' + x of active output positions; ignored from `count` on.
        count: int32[], number of positions computed.
        geometry: geometry of the convolution.
        implementation: name of the kernel.
        bias: float[O].
        activation: None or "relu".
        residual: float[R, O], added before the activation.
        tile: tile sizes; None for the tuned tile, else the heuristic's.
        interpret: True or Pallas' interpreter parameters, to run without the device.

    Returns:
        float[R, O], 0 from `count` on.

    Raises:
        ValueError: shapes or dtypes of the arguments are inconsistent.
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    check_rows_fit(geometry)
    return gather_conv(
        padded_pixels(x, geometry),
        flat_weights(w),
        window_rows(rows.astype(jnp.int32), geometry),
        taps=tap_offsets(geometry),
        count=count,
        bias=bias,
        groups=geometry.groups,
        activation=activation,
        residual=residual,
        tile=tile,
        implementation=implementation,
        op="masked_conv",
        interpret=interpret,
    )
