"""Convolution and batch normalisation with this package's defaults, alone and combined."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import HE_FAN_OUT

Padding = str | tuple[tuple[int, int], tuple[int, int]]


def same_padding(kernel_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns symmetric padding of half the kernel size, which preserves the size at stride 1.

    Unlike "SAME" it does not depend on the stride, as in Caffe and PyTorch.
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
) -> Conv:
    """Creates a convolution, float[N, H, W, C] -> float[N, H', W', O].

    Args:
        features: number of output channels O.
        kernel_size: (height, width).
        name: name of the linen module.
        strides: (vertical, horizontal).
        padding: padding of `flax.linen.Conv`; by default half the kernel size on every side.
        groups: number of channel groups.
        use_bias: whether to add a bias; redundant before batch normalisation.
        kernel_init: initialiser of the weights; by default He normal over the fan-out.
        dtype: dtype of the computation.
    """
    return Conv(
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
    """Creates a batch normalisation over N, H, W with float32 statistics.

    Args:
        train: whether to use batch statistics and update the running ones; otherwise the running
            statistics are used.
        name: name of the linen module.
        epsilon: constant added to the variance.
        momentum: decay rate of the running statistics.
        affine: whether to apply a scale and a shift per channel.
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
    """Convolution, batch normalisation and an optional ReLU.

    Attributes:
        features: number of output channels O.
        kernel_size: (height, width).
        strides: (vertical, horizontal).
        padding: padding of `flax.linen.Conv`; None for half the kernel size on every side.
        groups: number of channel groups.
        use_bias: whether the convolution has a bias.
        epsilon: constant added to the variance.
        momentum: decay rate of the running statistics.
        affine: whether the normalisation has a scale and a shift.
        activation: whether to apply ReLU.
        dropout_rate: rate of binary dropout between convolution and normalisation, drawn from the
            stream ``dropout``.
        kernel_init: initialiser of the convolution's weights.
        dtype: dtype of the computation.
        names: names of the convolution and the normalisation modules.
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
        """Applies convolution, dropout, normalisation and ReLU."""
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
