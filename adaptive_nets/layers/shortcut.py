"""Parameter-free shortcuts of residual units."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.pooling import avg_pool
from adaptive_nets.runtime.errors import UserError

ZeroChannels = Literal["both", "after"]


def pad_channels(
    x: Float[Array, "N H W C"], channels: int, *, zeros: ZeroChannels = "both"
) -> Float[Array, "N H W O"]:
    """Pads the channel axis with zeros.

    Args:
        x: float[N, H, W, C].
        channels: number of output channels O, at least C.
        zeros: "both" pads half before and half after, the odd channel after; "after" pads after.

    Returns:
        float[N, H, W, O].

    Raises:
        UserError: `channels` is less than C, or `zeros` is unknown.
    """
    missing = channels - x.shape[-1]
    if missing < 0:
        raise UserError(f"channels is {channels}; expected at least the input's {x.shape[-1]}")
    if zeros not in ("both", "after"):
        raise UserError(f"zeros is {zeros!r}; expected 'both' or 'after'")
    before = missing // 2 if zeros == "both" else 0
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))


def subsample(x: Float[Array, "N H W C"], strides: tuple[int, int]) -> Float[Array, "N H2 W2 C"]:
    """Keeps every ``strides``-th position; the size is that of a strided 3x3 SAME convolution."""
    return x[:, :: strides[0], :: strides[1]]


def average(x: Float[Array, "N H W C"], strides: tuple[int, int]) -> Float[Array, "N H2 W2 C"]:
    """Averages over windows of size ``strides``; the last windows are clipped at the border."""
    return x if strides == (1, 1) else avg_pool(x, strides, ceil_mode=True)
