"""Networks of the deep weight prior: few convolutions of large kernels and one or two dense layers.

All kernels start Xavier-normal, the initialisation that priors of kernels are compared with
[atanov2019]. Activations are leaky ReLUs of slope 0.01.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import variance_scaling
from adaptive_nets.layers.pooling import tiled_max_pool
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

XAVIER_NORMAL = variance_scaling(1.0, "fan_avg", "normal")


class _LargeKernels(nn.Module):
    """Base of these networks.

    Attributes:
        widths: channels of the convolutions.
        num_classes: number of logits.
        dtype: dtype of the computation.
    """

    widths: tuple[int, ...]
    num_classes: int = 10
    dtype: Any = jnp.float32

    def conv(self, x: Array, index: int, size: int) -> Array:
        """Applies a convolution without padding, and the activation.

        Raises:
            UserError: the image is smaller than the kernel.
        """
        if min(x.shape[1:3]) < size:
            raise UserError(
                f"the input of conv{index} is {x.shape[1]}x{x.shape[2]}; expected at least "
                f"{size}x{size}, the size of its kernels"
            )
        layer = Conv(
            self.widths[index - 1],
            (size, size),
            padding="VALID",
            kernel_init=XAVIER_NORMAL,
            dtype=self.dtype,
            name=f"conv{index}",
        )
        return nn.leaky_relu(layer(x))

    def dense(self, x: Array, features: int, name: str) -> Array:
        """Applies a dense layer with bias to flattened inputs."""
        layer = nn.Dense(features, kernel_init=XAVIER_NORMAL, dtype=self.dtype, name=name)
        return layer(x.reshape(len(x), -1))


def _halve(x: Float[Array, "N H W C"]) -> Array:
    """Takes maxima of 2x2 windows; a last odd row or column is left out."""
    height, width = (2 * (size // 2) for size in x.shape[1:3])
    return tiled_max_pool(x[:, :height, :width], (2, 2))


class FConv(_LargeKernels):
    """Convolutions of 7x7 and 5x5, each with max-pooling, and a dense layer, for 28x28 images."""

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        del train
        x = _halve(self.conv(x, 1, 7))
        x = _halve(self.conv(x, 2, 5))
        return self.dense(x, self.num_classes, "linear")


class CIFARNet(_LargeKernels):
    """Convolutions of 7x7, 5x5 and 5x5, and two dense layers, for 32x32 images.

    Attributes:
        hidden: units of the first dense layer.
    """

    hidden: int = 512

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        del train
        x = _halve(self.conv(x, 1, 7))
        x = self.conv(self.conv(x, 2, 5), 3, 5)
        x = nn.leaky_relu(self.dense(x, self.hidden, "fc1"))
        return self.dense(x, self.num_classes, "fc2")


class ShapesNet(_LargeKernels):
    """One convolution of 16x16, the maximum over all positions, and a dense layer."""

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        del train
        x = jnp.max(self.conv(x, 1, 16), axis=(1, 2))
        return self.dense(x, self.num_classes, "linear")


def _checked(widths: Any, count: int) -> tuple[int, ...]:
    """Returns the channels of so many convolutions.

    Raises:
        UserError: there are more or fewer, or one is not positive.
    """
    found = tuple(widths)
    if len(found) != count or min(found) < 1:
        raise UserError(
            f"widths is {widths!r}; expected {count} positive numbers, the channels of the "
            "convolutions"
        )
    return found


@register_model("fconv_mnist", input_shape=(28, 28, 1), num_classes=10, source="atanov2019")
def fconv_mnist(
    *, num_classes: int, widths: tuple[int, ...] = (32, 128), dtype: Any = jnp.float32
) -> nn.Module:
    """FConvMNIST: convolutions of 7x7 and 5x5, and a dense layer."""
    return FConv(_checked(widths, 2), num_classes=num_classes, dtype=dtype)


@register_model("cifarnet", input_shape=(32, 32, 3), num_classes=10, source="atanov2019")
def cifarnet(
    *, num_classes: int, widths: tuple[int, ...] = (128, 256, 256), dtype: Any = jnp.float32
) -> nn.Module:
    """CIFARNetNew: convolutions of 7x7, 5x5 and 5x5, and two dense layers."""
    return CIFARNet(_checked(widths, 3), num_classes=num_classes, dtype=dtype)


@register_model("shapes_net", input_shape=(28, 28, 1), num_classes=4, source="atanov2019")
def shapes_net(
    *, num_classes: int, widths: tuple[int, ...] = (20,), dtype: Any = jnp.float32
) -> nn.Module:
    """Network of four shapes: a convolution of 16x16, maxima over positions, a dense layer."""
    return ShapesNet(_checked(widths, 1), num_classes=num_classes, dtype=dtype)
