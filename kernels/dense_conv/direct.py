"""Dense NHWC convolution with float32 accumulation."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels._common.target import current_target
from kernels.dense_conv.api import conv_general_dilated

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def direct(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    groups: int,
) -> Float[Array, "N H2 W2 O"]:
    """Computes a convolution with float32 sums; for float32 inputs bitwise equal to `flax.linen`.

    Args:
        x: float[N, H, W, C].
        w: float[KH, KW, C / groups, O].
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)); negative padding crops.
        groups: number of channel groups.
    """
    dtype = x.dtype
    if dtype in (jnp.bfloat16, jnp.float16) and current_target().platform == "cpu":
        # Accelerators already accumulate 16-bit products in float32.
        x, w = x.astype(jnp.float32), w.astype(jnp.float32)
    y = conv_general_dilated(
        x, w, strides, padding, dimension_numbers=_DIMENSIONS, feature_group_count=groups
    )
    return y.astype(dtype)
