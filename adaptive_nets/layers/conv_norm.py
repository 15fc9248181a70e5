"""Convolution and batch normalisation as the families write them, and the two together."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.kernel_init import HE_FAN_OUT

Padding = str | tuple[tuple[int, int], tuple[int, int]]


def same_padding(kernel_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The symmetric padding that keeps the size at stride 1: half an odd kernel on every side.

    Unlike "SAME" it does not depend on the stride, which is what Caffe's and PyTorch's networks do.
    """
    height, width = (size // 2 for size in kernel_size)
    return (height, height), (width, width)


def conv(
    features: int,
    kernel_size: tuple[int, int],
    *,
    name: str,
    strides: tuple[int, int] = (1, 1),
    padding: Padding | None = None,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Any = HE_FAN_OUT,
    dtype: Any = jnp.float32,
) -> nn.Conv:
    """A named convolution, float[N, H, W, C] -> float[N, H', W', O].

    Args:
        features: O.
        kernel_size: (height, width).
        name: of the linen module.
        strides: (vertical, horizontal).
        padding: as of `flax.linen.Conv`; half the kernel on every side where not given.
        groups: number of groups of channels that do not see each other.
        use_bias: usually not, as batch normalisation follows.
        kernel_init: initialiser of the weights; He's normal over the fan-out where not given.
        dtype: dtype of the computation.
    """
    return nn.Conv(
        features,
        kernel_size,
        strides=strides,
        padding=same_padding(kernel_size) if padding is None else padding,
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )


def batch_norm(
    train: bool,
    *,
    name: str,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    affine: bool = True,
    dtype: Any = jnp.float32,
) -> nn.BatchNorm:
    """A named batch normalisation over N, H, W; its statistics are float32.

    Args:
        train: statistics of the batch, and the running ones are updated; else the running ones.
        name: of the linen module.
        epsilon: added to the variance.
        momentum: share of the old running value that is kept.
        affine: whether there are a scale and a shift per channel.
        dtype: dtype of the output.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        use_bias=affine,
        use_scale=affine,
        dtype=dtype,
        name=name,
    )


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless switched off, ReLU.

    Attributes:
        features: number of output channels O.
        kernel_size: (height, width).
        strides: (vertical, horizontal).
        padding: as of `flax.linen.Conv`; half the kernel on every side where None.
        groups: number of groups of channels that do not see each other.
        use_bias: whether the convolution has a bias before the normalisation.
        epsilon: of the normalisation.
        momentum: share of the old running statistics that is kept.
        affine: whether the normalisation has a scale and a shift.
        activation: whether ReLU follows.
        dropout_rate: binary dropout between convolution and normalisation (stream ``dropout``).
        kernel_init: initialiser of the convolution's weights.
        dtype: dtype of the computation.
        names: of the convolution and of the normalisation.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: Padding | None = None
    groups: int = 1
    use_bias: bool = False
    epsilon: float = 1e-5
    momentum: float = 0.9
    affine: bool = True
    activation: bool = True
    dropout_rate: float = 0.0
    kernel_init: Any = HE_FAN_OUT
    dtype: Any = jnp.float32
    names: tuple[str, str] = ("conv", "bn")

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False
    ) -> Float[Array, "N H2 W2 O"]:
        """The unit's output."""
        x = conv(
            self.features,
            self.kernel_size,
            name=self.names[0],
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
        )(x)
        if self.dropout_rate:
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = batch_norm(
            train,
            name=self.names[1],
            epsilon=self.epsilon,
            momentum=self.momentum,
            affine=self.affine,
            dtype=self.dtype,
        )(x)
        return nn.relu(x) if self.activation else x
