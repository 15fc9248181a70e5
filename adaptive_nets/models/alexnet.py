"""AlexNet: the two-group network of 2012, its single-stream and Caffe forms, and that of 2014."""

from __future__ import annotations

from typing import Any, Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers import adaptive_avg_pool, local_response_norm, max_pool
from adaptive_nets.layers.conv_norm import conv
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import normal
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

ResponseNorm = Literal["paper", "caffe"]
Order = Literal["norm_pool", "pool_norm"]

_NORMS: dict[str, dict[str, Any]] = {
    "paper": {"alpha": 1e-4, "beta": 0.75, "k": 2.0, "divide_by_size": False},
    "caffe": {"alpha": 1e-4, "beta": 0.75, "k": 1.0, "divide_by_size": True},
}
_SMALL_NORMAL = normal(0.01)


class AlexNet2012(nn.Module):
    """Five convolutions and three dense layers, initialised as in [krizhevsky2012].

    Weights start at N(0, 0.01²). Biases start at 1 in conv2, conv4, conv5 and the hidden dense
    layers, so that their ReLUs get positive inputs, and at 0 elsewhere. Inputs are 227x227: the 224
    printed in the paper does not give its 55x55 maps.

    Attributes:
        num_classes: number of logits.
        groups: channel groups of conv2, conv4 and conv5: 2 for the paper's two GPUs, or 1.
        response_norm: "paper" uses k = 2 and alpha as printed; "caffe" uses k = 1 and divides alpha
            by the five channels of the window.
        order: "norm_pool" normalises before pooling (paper); "pool_norm" pools first (CaffeNet).
        dropout_rate: dropout rate after both hidden dense layers in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    num_classes: int = 1000
    groups: int = 2
    response_norm: ResponseNorm = "paper"
    order: Order = "norm_pool"
    dropout_rate: float = 0.5
    dtype: Any = jnp.float32

    def __post_init__(self):
        for name, choices in (("response_norm", ResponseNorm), ("order", Order)):
            if getattr(self, name) not in get_args(choices):
                expected = " or ".join(map(repr, get_args(choices)))
                raise UserError(f"{name} is {getattr(self, name)!r}; expected {expected}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""

        def convolve(x, name, features, size, *, stride=1, groups=1, bias=0.0):
            half = 0 if stride > 1 else size // 2
            return nn.relu(
                Conv(
                    features,
                    (size, size),
                    strides=(stride, stride),
                    padding=((half, half), (half, half)),
                    feature_group_count=groups,
                    dtype=self.dtype,
                    kernel_init=_SMALL_NORMAL,
                    bias_init=initializers.constant(bias),
                    name=name,
                )(x)
            )

        def dense(features, name, bias):
            return nn.Dense(
                features,
                dtype=self.dtype,
                kernel_init=_SMALL_NORMAL,
                bias_init=initializers.constant(bias),
                name=name,
            )

        x = self._norm_and_pool(convolve(x, "conv1", 96, 11, stride=4))
        x = self._norm_and_pool(convolve(x, "conv2", 256, 5, groups=self.groups, bias=1.0))
        x = convolve(x, "conv3", 384, 3)
        x = convolve(x, "conv4", 384, 3, groups=self.groups, bias=1.0)
        x = convolve(x, "conv5", 256, 3, groups=self.groups, bias=1.0)
        x = max_pool(x, (3, 3), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(dense(4096, name, 1.0)(x))
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return dense(self.num_classes, "fc8", 0.0)(x)

    def _norm_and_pool(self, x: Array) -> Array:
        norm = _NORMS[self.response_norm]
        if self.order == "pool_norm":
            return local_response_norm(max_pool(x, (3, 3), (2, 2)), **norm)
        return max_pool(local_response_norm(x, **norm), (3, 3), (2, 2))


class AlexNet2014(nn.Module):
    """AlexNet of [krizhevsky2014] in torchvision's form: one stream, no normalisation.

    Convolutions start He-normal (fan-out), dense layers N(0, 1 / fan-in). Sub-modules are named as
    in torchvision. The first dense layer flattens positions before channels, torchvision's channels
    first.

    Attributes:
        num_classes: number of logits.
        dropout_rate: dropout rate before both hidden dense layers in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    num_classes: int = 1000
    dropout_rate: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images, at least 63x63."""

        def convolve(x, index, features, size, stride=1, half=None):
            half = size // 2 if half is None else half
            padding = ((half, half), (half, half))
            options = {"strides": (stride, stride), "use_bias": True, "dtype": self.dtype}
            layer = conv(
                features, (size, size), name=f"features_{index}", padding=padding, **options
            )
            return nn.relu(layer(x))

        def dense(features, index):
            return nn.Dense(features, dtype=self.dtype, name=f"classifier_{index}")

        x = max_pool(convolve(x, 0, 64, 11, stride=4, half=2), (3, 3), (2, 2))
        x = max_pool(convolve(x, 3, 192, 5), (3, 3), (2, 2))
        x = convolve(x, 6, 384, 3)
        x = convolve(x, 8, 256, 3)
        x = max_pool(convolve(x, 10, 256, 3), (3, 3), (2, 2))
        x = adaptive_avg_pool(x, (6, 6))
        x = x.reshape(x.shape[0], -1)
        for index in (1, 4):
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            x = nn.relu(dense(4096, index)(x))
        return dense(self.num_classes, 6)(x)


_AT_227 = {"input_shape": (227, 227, 3), "num_classes": 1000}


@register_model(
    "alexnet",
    input_shape=(224, 224, 3),
    num_classes=1000,
    source="krizhevsky2014",
    aliases=("alexnet_owt", "alexnet_2014", "alexnet_torchvision"),
)
def alexnet(*, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5) -> nn.Module:
    """AlexNet of 2014 (one weird trick), torchvision's form."""
    return AlexNet2014(num_classes=num_classes, dropout_rate=dropout_rate, dtype=dtype)


@register_model(
    "alexnet_2012", **_AT_227, source="krizhevsky2012", aliases=("alexnet_2012_two_groups",)
)
def alexnet_2012(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    groups: int = 2,
    response_norm: ResponseNorm = "paper",
    order: Order = "norm_pool",
    dropout_rate: float = 0.5,
) -> nn.Module:
    """AlexNet of 2012: two groups of channels, local response normalisation."""
    return AlexNet2012(num_classes, groups, response_norm, order, dropout_rate, dtype)


@register_model(
    "alexnet_2012_single_stream",
    **_AT_227,
    source="krizhevsky2012",
    aliases=("alexnet_single_stream",),
)
def alexnet_2012_single_stream(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    response_norm: ResponseNorm = "paper",
    order: Order = "norm_pool",
    dropout_rate: float = 0.5,
) -> nn.Module:
    """AlexNet of 2012 in a single stream, without channel groups."""
    return AlexNet2012(num_classes, 1, response_norm, order, dropout_rate, dtype)


@register_model(
    "alexnet_caffe", **_AT_227, source="krizhevsky2012, jia2014", aliases=("bvlc_alexnet",)
)
def alexnet_caffe(
    *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5
) -> nn.Module:
    """AlexNet of 2012 with Caffe's response normalisation (k = 1, alpha / 5)."""
    return AlexNet2012(num_classes, response_norm="caffe", dropout_rate=dropout_rate, dtype=dtype)


@register_model(
    "caffenet", **_AT_227, source="krizhevsky2012, jia2014", aliases=("bvlc_reference_caffenet",)
)
def caffenet(*, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5) -> nn.Module:
    """CaffeNet: alexnet_caffe with pooling before normalisation."""
    return AlexNet2012(
        num_classes,
        response_norm="caffe",
        order="pool_norm",
        dropout_rate=dropout_rate,
        dtype=dtype,
    )
