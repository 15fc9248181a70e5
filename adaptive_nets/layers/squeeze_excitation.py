"""Squeeze-and-excitation: channel gates computed from the global average of the map."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float


def rescale_channels(
    x: Float[Array, "N H W C"], gates: Float[Array, "N C"]
) -> Float[Array, "N H W C"]:
    """Multiplies each channel of each image by its gate.

    Args:
        x: float[N, H, W, C].
        gates: float[N, C].

    Returns:
        float[N, H, W, C].
    """
    return x * gates[:, None, None, :]


class SqueezeExcitation(nn.Module):
    """Rescaling x * sigmoid(W2 relu(W1 mean(x))), mean over positions (hu2018, equations 2-4).

    Attributes:
        reduction: r; the hidden layer has max(1, C // r) units.
        use_bias: whether the dense layers have biases, as in the released networks; the paper's
            ablations have none.
        hidden: number of hidden units instead of C // r.
        names: names of the two dense layers.
        dtype: dtype of the computation.
    """

    reduction: int = 16
    use_bias: bool = True
    hidden: int | None = None
    names: tuple[str, str] = ("fc1", "fc2")
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
        """Rescales the channels of `x`."""
        channels = x.shape[-1]
        hidden = self.hidden or max(1, channels // self.reduction)
        options: dict[str, Any] = {"use_bias": self.use_bias, "dtype": self.dtype}
        gates = jnp.mean(x, axis=(1, 2))
        gates = nn.Dense(
            hidden, kernel_init=initializers.he_normal(), name=self.names[0], **options
        )(gates)
        gates = nn.Dense(channels, name=self.names[1], **options)(nn.relu(gates))
        return rescale_channels(x, nn.sigmoid(gates))
