"""Masked convolution for CUDA devices, by Triton: values only, at listed positions."""

from __future__ import annotations

from typing import Literal

import jax

from kernels._common.gather_conv.forward import masked_forward
from kernels._common.geometry import Geometry
from kernels._common.tiling import TileConfig


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
    tile: TileConfig | None = None,
    interpret=False,
) -> jax.Array:
    """Convolution at active positions.

    Args:
        x: float[N, H, W, C], float32, bfloat16 or float16.
        w: float[KH, KW, C / groups, O] of the same dtype.
        rows: int32[R], n·H'·W' + y·W' + x of active output positions; from `count` on anything.
        count: int32[], how many of them are computed.
        geometry: sizes, strides, padding, groups.
        bias: float[O].
        activation: None or "relu".
        residual: float[R, O], added before the activation.
        tile: tile sizes; None: tuned, else heuristic.
        interpret: True, or Pallas' interpreter parameters, to run without the device.

    Returns:
        float[R, O], 0 from `count` on.

    Raises:
        ValueError: the arguments do not fit together.
        NotImplementedError: not for these inputs, or not on this machine.
    """
    return masked_forward(
        x,
        w,
        rows,
        count,
        geometry,
        bias=bias,
        activation=activation,
        residual=residual,
        tile=tile,
        implementation="pallas_triton",
        interpret=interpret,
    )
