"""Network in network [lin2013]: convolutions followed by 1x1 convolutions, no dense layers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers import global_avg_pool, max_pool
from adaptive_nets.layers.conv_norm import same_padding
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import HE_FAN_OUT, normal
from adaptive_nets.models.registry import register_model

Initialiser = Any
# Kernel initialiser of the authors' CIFAR files.
PUBLISHED_INIT = normal(0.05)

# (kernel size, widths of the convolution and of the two 1x1 convolutions after it) of a unit. The
# last unit omits its last width, the number of classes.
Unit = tuple[int, tuple[int, ...]]
_CIFAR: tuple[Unit, ...] = ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192)))
_SVHN: tuple[Unit, ...] = ((5, (128, 96, 64)), (5, (320, 256, 128)), (5, (384, 256)))
_IMAGENET: tuple[Unit, ...] = (
    (11, (96, 96, 96)),
    (5, (256, 256, 256)),
    (3, (384, 384, 384)),
    (3, (1024, 1024)),
)


class NetworkInNetwork(nn.Module):
    """Network in network: units of a convolution and two 1x1 convolutions, each with ReLU.

    The last 1x1 convolution has one map per class, followed by ReLU. Logits are the means of these
    maps and so never negative. Units are separated by 3x3 max pooling at stride 2, with output
    sizes rounded up, and dropout. Sub-modules are named as in the authors' files: conv1, cccp1,
    cccp2, conv2 ...

    Attributes:
        units: kernel size and widths of every unit, without the number of classes.
        num_classes: number of logits.
        dropout_after: units, counted from 1, whose pooling is followed by dropout.
        first_stride: stride of the first convolution, which is padded only at stride 1.
        dropout_rate: dropout rate in training (stream ``dropout``).
        kernel_init: initialiser of all kernels.
        active_outputs: whether the last convolution starts with a tenth of these weights and biases
            of 1, so that the last ReLU is open for every class. With zero biases it may be closed
            for a class on all images, and that class then never learns.
        dtype: dtype of the computation.
    """

    units: tuple[Unit, ...]
    num_classes: int = 10
    dropout_after: tuple[int, ...] = (1, 2)
    first_stride: int = 1
    dropout_rate: float = 0.5
    kernel_init: Initialiser = PUBLISHED_INIT
    active_outputs: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""

        def convolve(x, name, features, size, stride=1, *, active=False):
            layer = Conv(
                features,
                (size, size),
                strides=(stride, stride),
                padding="VALID" if stride > 1 else same_padding((size, size)),
                dtype=self.dtype,
                kernel_init=_tenth_of(self.kernel_init) if active else self.kernel_init,
                bias_init=initializers.ones if active else initializers.zeros,
                name=name,
            )
            return nn.relu(layer(x))

        mixers = 0
        for unit, (size, widths) in enumerate(self.units, start=1):
            last = unit == len(self.units)
            first_width, *others = (*widths, self.num_classes) if last else widths
            stride = self.first_stride if unit == 1 else 1
            x = convolve(x, f"conv{unit}", first_width, size, stride)
            for place, width in enumerate(others, start=1):
                mixers += 1
                active = self.active_outputs and last and place == len(others)
                x = convolve(x, f"cccp{mixers}", width, 1, active=active)
            if not last:
                x = max_pool(x, (3, 3), (2, 2), ceil_mode=True)
            if unit in self.dropout_after:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return global_avg_pool(x)


def _tenth_of(kernel_init: Initialiser) -> Initialiser:
    """Returns an initialiser with a tenth of another one's values."""

    def init(*arguments: Any) -> Array:
        return 0.1 * kernel_init(*arguments)

    return init


def _cifar(num_classes: int, dtype: Any, dropout_rate: float, **options: Any) -> nn.Module:
    return NetworkInNetwork(_CIFAR, num_classes, dropout_rate=dropout_rate, dtype=dtype, **options)


@register_model(
    "nin_cifar10", input_shape=(32, 32, 3), num_classes=10, source="lin2013", aliases=("nin_cifar",)
)
def nin_cifar10(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    dropout_rate: float = 0.5,
    kernel_init: Initialiser = PUBLISHED_INIT,
    active_outputs: bool = False,
) -> nn.Module:
    """Network in network for CIFAR-10, with max pooling in both places as in the authors' file."""
    return _cifar(
        num_classes, dtype, dropout_rate, kernel_init=kernel_init, active_outputs=active_outputs
    )


@register_model("nin_cifar100", input_shape=(32, 32, 3), num_classes=100, source="lin2013")
def nin_cifar100(
    *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5
) -> nn.Module:
    """Network in network for CIFAR-100."""
    return _cifar(num_classes, dtype, dropout_rate)


@register_model("nin_svhn", input_shape=(32, 32, 3), num_classes=10, source="lin2013")
def nin_svhn(*, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5) -> nn.Module:
    """Network in network for SVHN, with its own widths and a 5x5 convolution in the last unit."""
    return NetworkInNetwork(_SVHN, num_classes, dropout_rate=dropout_rate, dtype=dtype)


@register_model(
    "nin_imagenet", input_shape=(224, 224, 3), num_classes=1000, source="lin2013", aliases=("nin",)
)
def nin_imagenet(
    *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5
) -> nn.Module:
    """Network in network for ImageNet as in the authors' Caffe file, with He-normal weights."""
    return NetworkInNetwork(
        _IMAGENET,
        num_classes,
        dropout_after=(3,),
        first_stride=4,
        dropout_rate=dropout_rate,
        kernel_init=HE_FAN_OUT,
        dtype=dtype,
    )
