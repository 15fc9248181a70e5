"""Inception modules as tables of branches, which are concatenated along the channels.

A family's file transcribes the paper's figures, one line per branch. `join_branches` evaluates such
a table inside a compact linen method, so every convolution becomes a child of the calling module
under the name in the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.arguments import as_pair
from adaptive_nets.layers.conv_norm import ConvNorm
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import LECUN
from adaptive_nets.layers.pooling import avg_pool, max_pool

# Epsilon of batch normalisation in the whole family (szegedy2015 and its published code).
EPSILON = 1e-3

Pads = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a branch, followed by batch normalisation and ReLU.

    Attributes:
        name: name of the linen module.
        features: number of output channels.
        kernel_size: (height, width).
        stride: stride in both directions.
        padding: ((top, bottom), (left, right)).
    """

    name: str
    features: int
    kernel_size: tuple[int, int]
    stride: int
    padding: Pads


@dataclasses.dataclass(frozen=True)
class Pooling:
    """One 3x3 pooling of a branch.

    Attributes:
        kind: "max" or "avg".
        stride: stride in both directions.
        padding: padding on every side.
        ceil_mode: whether the output size is rounded up, which keeps a partly filled last window.
        count_include_pad: whether averages include the zeros of the padding.
    """

    kind: Literal["max", "avg"]
    stride: int = 1
    padding: int = 1
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H2 W2 C"]:
        """Pools a map."""
        window, strides = (3, 3), (self.stride, self.stride)
        padding = ((self.padding, self.padding), (self.padding, self.padding))
        if self.kind == "max":
            return max_pool(x, window, strides, padding, ceil_mode=self.ceil_mode)
        return avg_pool(
            x,
            window,
            strides,
            padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )


@dataclasses.dataclass(frozen=True)
class Fork:
    """Split at the end of a branch.

    Attributes:
        branches: sub-branches, concatenated along the channels in this order.
    """

    branches: tuple[Branch, ...]


Branch = tuple[Convolution | Pooling | Fork, ...]
# Applies one convolution with its normalisation and activation.
Apply = Callable[[Convolution, Array], Array]

REDUCE_BY_MAXIMUM = Pooling("max", stride=2, padding=0)


def conv(
    name: str,
    features: int,
    kernel_size: int | tuple[int, int] = 1,
    *,
    stride: int = 1,
    valid: bool = False,
) -> Convolution:
    """Creates the convolution of one table entry.

    Args:
        name: name of the linen module.
        features: number of output channels.
        kernel_size: (height, width), or the side of a square; odd.
        stride: stride in both directions.
        valid: whether padding is omitted; otherwise half the kernel on every side.
    """
    height, width = as_pair("kernel_size", kernel_size)
    rows, columns = (0, 0) if valid else (height // 2, width // 2)
    padding = ((rows, rows), (columns, columns))
    return Convolution(name, features, (height, width), stride, padding)


def join_branches(
    branches: tuple[Branch, ...], x: Float[Array, "N H W C"], apply: Apply
) -> Float[Array, "N H2 W2 O"]:
    """Applies all branches to one input and concatenates the outputs along the channels.

    Args:
        branches: sequences of steps; an empty branch is the identity.
        x: float[N, H, W, C].
        apply: function that creates and applies the module of a convolution.

    Returns:
        float[N, H', W', O].
    """
    outputs = []
    for branch in branches:
        y = x
        for step in branch:
            if isinstance(step, Fork):
                y = join_branches(step.branches, y, apply)
            else:
                y = step(y) if isinstance(step, Pooling) else apply(step, y)
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)


def conv_norm_units(dtype: Any, train: bool) -> Apply:
    """Returns a function that applies each convolution as a `ConvNorm` without bias."""

    def apply(step: Convolution, x: Array) -> Array:
        unit = ConvNorm(
            step.features,
            step.kernel_size,
            strides=(step.stride, step.stride),
            padding=step.padding,
            epsilon=EPSILON,
            dtype=dtype,
            name=step.name,
        )
        return unit(x, train)

    return apply


class InceptionModule(nn.Module):
    """Inception module: branches concatenated along the channels.

    Attributes:
        branches: steps of each branch.
        dtype: dtype of the computation.
    """

    branches: tuple[Branch, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Returns the concatenated branches, float[N, H', W', O]."""
        return join_branches(self.branches, x, conv_norm_units(self.dtype, train))


class ResidualInceptionModule(nn.Module):
    """Residual Inception module: relu(x + scale * expansion(branches)).

    The expansion is a 1x1 convolution with bias, without normalisation and activation.

    Attributes:
        branches: steps of each branch.
        scale: factor of the residual (szegedy2016, section 3.3).
        activation: whether ReLU follows the sum.
        dtype: dtype of the computation.
    """

    branches: tuple[Branch, ...]
    scale: float
    activation: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N H W C"]:
        """Computes the module's output."""
        residual = join_branches(self.branches, x, conv_norm_units(self.dtype, train))
        # No ReLU follows, so LeCun's initialisation keeps the variance of the inputs.
        residual = Conv(x.shape[-1], (1, 1), kernel_init=LECUN, dtype=self.dtype, name="conv2d")(
            residual
        )
        x = x + self.scale * residual
        return nn.relu(x) if self.activation else x
