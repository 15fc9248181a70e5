"""Squeeze-and-excitation: channels rescaled by what the whole map says of them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float


def rescale_channels(
    x: Float[Array, "N H W C"], gates: Float[Array, "N C"]
) -> Float[Array, "N H W C"]:
    """Multiplies every channel of every image by its own number.

    Args:
        x: float[N, H, W, C].
        gates: float[N, C].

    Returns:
        float[N, H, W, C].
    """
    return x * gates[:, None, None, :]


class SqueezeExcitation(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))), the mean over the map (hu2018, equations 2-4).

    Attributes:
        reduction: r; the hidden layer has C // r units, at least one.
        use_bias: whether the two dense layers have biases, as in the released networks; the paper's
            ablations are without.
        hidden: number of hidden units, in place of C // r.
        names: of the two dense layers.
        dtype: dtype of the computation.
    """

    reduction: int = 16
    use_bias: bool = True
    hidden: int | None = None
    names: tuple[str, str] = ("fc1", "fc2")
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
        """The map with its channels rescaled."""
        channels = x.shape[-1]
        hidden = self.hidden or max(1, channels // self.reduction)
        options: dict[str, Any] = {"use_bias": self.use_bias, "dtype": self.dtype}
        gates = jnp.mean(x, axis=(1, 2))
        gates = nn.Dense(
            hidden, kernel_init=initializers.he_normal(), name=self.names[0], **options
        )(gates)
        gates = nn.Dense(channels, name=self.names[1], **options)(nn.relu(gates))
        return rescale_channels(x, nn.sigmoid(gates))
