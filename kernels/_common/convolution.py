"""XLA's dense convolution with float32 accumulation."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels._common.cost import FEW_GROUPS
from kernels._common.target import current_target

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def direct_by_group(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    *,
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    groups: int,
) -> Float[Array, "N H2 W2 O"]:
    """Computes `direct`, on a CPU with one convolution per group if there are few groups.

    XLA's grouped convolution is several times slower on a CPU.
    """
    options = {"strides": strides, "padding": padding}
    if groups == 1 or groups > FEW_GROUPS or current_target().platform != "cpu":
        return direct(x, w, groups=groups, **options)
    inputs, weights = jnp.split(x, groups, axis=3), jnp.split(w, groups, axis=3)
    parts = [direct(a, b, groups=1, **options) for a, b in zip(inputs, weights, strict=True)]
    return jnp.concatenate(parts, axis=3)


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
    y = lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=_DIMENSIONS, feature_group_count=groups
    )
    return y.astype(dtype)
