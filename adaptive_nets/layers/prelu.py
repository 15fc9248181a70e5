"""PReLU with one learned slope for all channels or one per group of channels."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float


def prelu(x: Float[Array, "... C"], slopes: Float[Array, " G"]) -> Float[Array, "... C"]:
    """Computes x for x >= 0 and slope·x for x < 0 [he2015a].

    Args:
        x: float[..., C].
        slopes: float[G], one per contiguous range of C/G channels.

    Returns:
        float[..., C], in the dtype of `x`.

    Raises:
        ValueError: G does not divide C.
    """
    channels, groups = x.shape[-1], slopes.shape[0]
    if channels % groups:
        raise ValueError(
            f"x has {channels} channels; expected a multiple of {groups} slopes, one slope per "
            "group of channels"
        )
    slopes = jnp.repeat(slopes.astype(x.dtype), channels // groups)
    return jnp.where(x >= 0, x, x * slopes.reshape((1,) * (x.ndim - 1) + (channels,)))


class PReLU(nn.Module):
    """Module that owns the slopes of `prelu`, float[groups], initialised to 0.25.

    Attributes:
        groups: number of slopes.
    """

    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
        """Applies `prelu`."""
        slopes = self.param(
            "negative_slope", initializers.constant(0.25), (self.groups,), jnp.float32
        )
        return prelu(x, slopes)
