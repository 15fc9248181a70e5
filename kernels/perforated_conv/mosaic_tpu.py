"""Perforated convolution for TPUs: values only, kept positions only."""

from __future__ import annotations

import jax
import numpy as np

from kernels._common.gather_conv.forward import perforated_forward
from kernels._common.geometry import Geometry
from kernels._common.tiling import TileConfig


def forward(
    x: jax.Array,
    w: jax.Array,
    positions: np.ndarray,
    geometry: Geometry,
    *,
    bias: jax.Array | None = None,
    tile: TileConfig | None = None,
    interpret=False,
) -> jax.Array:
    """Convolution at kept positions.

    Args:
        x: float[N, H, W, C], float32, bfloat16 or float16.
        w: float[KH, KW, C / groups, O] of the same dtype.
        positions: int32[P], NumPy, y·W' + x of the kept output positions.
        geometry: sizes, strides, padding, groups.
        bias: float[O].
        tile: tile sizes; None: tuned, else heuristic.
        interpret: True, or Pallas' interpreter parameters, to run without the device.

    Returns:
        float[N, P, O].

    Raises:
        ValueError: the arguments do not fit together.
        NotImplementedError: not for these inputs, or not on this machine.
    """
    return perforated_forward(
        x,
        w,
        positions,
        geometry,
        bias=bias,
        tile=tile,
        implementation="mosaic_tpu",
        interpret=interpret,
    )
