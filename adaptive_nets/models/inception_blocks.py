"""Inception modules written as tables: branches of convolutions and poolings, joined by channels.

A family's file lists what the paper's figure shows, a line per branch. `join_branches` walks such a
table inside a compact linen method, so that every convolution becomes a child of the module that
calls it, under the name the table gives it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.conv_norm import ConvNorm
from adaptive_nets.layers.kernel_init import LECUN
from adaptive_nets.layers.pooling import avg_pool, max_pool

# Batch normalisation in the whole family (szegedy2015 and its published code).
EPSILON = 1e-3

Pads = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a branch, followed by batch normalisation and ReLU.

    Attributes:
        name: of the linen module.
        features: number of output channels.
        kernel_size: (height, width).
        stride: in both directions.
        padding: ((top, bottom), (left, right)).
    """

    name: str
    features: int
    kernel_size: tuple[int, int]
    stride: int
    padding: Pads


@dataclasses.dataclass(frozen=True)
class Pooling:
    """A 3x3 pooling of a branch.

    Attributes:
        kind: maximum or average.
        stride: in both directions.
        padding: on every side.
        ceil_mode: whether a last window that is only partly filled counts.
        count_include_pad: whether an average counts the padding's zeros.
    """

    kind: Literal["max", "avg"]
    stride: int = 1
    padding: int = 1
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H2 W2 C"]:
        """The pooled map."""
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
    """The end of a branch that splits once more.

    Attributes:
        branches: joined by channels in this order.
    """

    branches: tuple[Branch, ...]


Branch = tuple[Convolution | Pooling | Fork, ...]
# Applies one convolution with all that follows it.
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
    """A line of a table.

    Args:
        name: of the linen module.
        features: number of output channels.
        kernel_size: (height, width), or the side of a square; odd.
        stride: in both directions.
        valid: no padding; else half the kernel on every side.
    """
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    rows, columns = (0, 0) if valid else (height // 2, width // 2)
    padding = ((rows, rows), (columns, columns))
    return Convolution(name, features, (height, width), stride, padding)


def join_branches(
    branches: tuple[Branch, ...], x: Float[Array, "N H W C"], apply: Apply
) -> Float[Array, "N H2 W2 O"]:
    """Outputs of all branches on one input, one after another along the channels.

    Args:
        branches: each a sequence of steps; an empty one passes the input on.
        x: float[N, H, W, C].
        apply: makes and applies the module of a convolution.

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
    """Applies a convolution as a `ConvNorm` of its name, without bias."""

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
    """One module: its branches joined by channels.

    Attributes:
        branches: the table.
        dtype: dtype of the computation.
    """

    branches: tuple[Branch, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """The joined branches, float[N, H', W', O]."""
        return join_branches(self.branches, x, conv_norm_units(self.dtype, train))


class ResidualInceptionModule(nn.Module):
    """relu(x + scale * expansion(branches)); the expansion is a 1x1 convolution with bias only.

    Attributes:
        branches: the table.
        scale: of the residual (szegedy2016, section 3.3).
        activation: whether ReLU follows the sum.
        dtype: dtype of the computation.
    """

    branches: tuple[Branch, ...]
    scale: float
    activation: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N H W C"]:
        """The module's output."""
        residual = join_branches(self.branches, x, conv_norm_units(self.dtype, train))
        # Linear, so its outputs start with the variance of its inputs.
        residual = nn.Conv(x.shape[-1], (1, 1), kernel_init=LECUN, dtype=self.dtype, name="conv2d")(
            residual
        )
        x = x + self.scale * residual
        return nn.relu(x) if self.activation else x
