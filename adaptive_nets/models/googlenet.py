"""GoogLeNet, the Inception network of 2014 [szegedy2014], in Caffe's and torchvision's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import (
    adaptive_avg_pool,
    avg_pool,
    global_avg_pool,
    local_response_norm,
    max_pool,
)
from adaptive_nets.layers.conv_norm import ConvNorm, same_padding
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import HE_FAN_IN
from adaptive_nets.models.normalisation import INCEPTION_STATISTICS
from adaptive_nets.models.output import ModelOutput
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

Form = Literal["caffe", "torchvision"]

# Widths of a block's branches: 1x1; 1x1 -> 3x3; 1x1 -> 5x5; projection after pooling.
Widths = tuple[int, tuple[int, int], tuple[int, int], int]
BLOCKS: dict[str, Widths] = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}
# Block -> auxiliary classifier that reads its output.
AUXILIARY = {"4a": "aux1", "4d": "aux2"}


class ConvUnit(nn.Module):
    """Convolution with bias, then ReLU; `ConvNorm` is the variant with normalisation.

    Kernels start He-normal over the fan-in. Over the fan-out, every narrowing 1x1 convolution would
    increase the activations' scale, and no normalisation would restore it.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the unit's output; training and test do not differ."""
        del train
        layer = Conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            padding=same_padding(self.kernel_size),
            dtype=self.dtype,
            kernel_init=HE_FAN_IN,
            name="conv",
        )
        return nn.relu(layer(x))


def _unit(
    form: Form, features: int, size: int, *, name: str, dtype: Any, stride: int = 1
) -> Callable[[Array, bool], Array]:
    kernel_size, strides = (size, size), (stride, stride)
    if form == "caffe":
        return ConvUnit(features, kernel_size, strides, dtype, name=name)
    return ConvNorm(features, kernel_size, strides, epsilon=1e-3, dtype=dtype, name=name)


class InceptionBlock(nn.Module):
    """Inception block: four branches concatenated along the channels."""

    widths: Widths
    form: Form
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N H W O"]:
        """Returns the concatenated branches."""

        def unit(x, name, features, size):
            return _unit(self.form, features, size, name=name, dtype=self.dtype)(x, train)

        single, middle, large, projection = self.widths
        large_size = 5 if self.form == "caffe" else 3
        pooled = max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)))
        branches = (
            unit(x, "branch1", single, 1),
            unit(unit(x, "branch2_0", middle[0], 1), "branch2_1", middle[1], 3),
            unit(unit(x, "branch3_0", large[0], 1), "branch3_1", large[1], large_size),
            unit(pooled, "branch4_1", projection, 1),
        )
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """Auxiliary classifier on an intermediate map: pool to 4x4, conv1x1, two dense layers."""

    num_classes: int
    form: Form
    dropout_rate: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits."""
        x = avg_pool(x, (5, 5), (3, 3)) if self.form == "caffe" else adaptive_avg_pool(x, (4, 4))
        x = _unit(self.form, 128, 1, name="conv", dtype=self.dtype)(x, train)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(1024, dtype=self.dtype, name="fc1")(x))
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc2")(x)


class GoogLeNet(nn.Module):
    """GoogLeNet: nine Inception blocks and, in training, two auxiliary classifiers.

    The auxiliary losses have weight 0.3 in [szegedy2014]. Convolutions start He-normal (over the
    fan-out with normalisation, the fan-in without), dense layers N(0, 1 / fan-in). Sub-modules of
    both forms are named as in torchvision. ``fc1`` of the auxiliary classifiers flattens positions
    before channels, torchvision's channels first. torchvision's published weights expect images
    scaled to [-1, 1].

    Attributes:
        num_classes: number of logits.
        form: "caffe" is the network of the paper, with biases, local response normalisation and 5x5
            convolutions. "torchvision" has batch normalisation, 3x3 in place of 5x5, 2x2 in the
            fourth max pooling, and adaptive pooling in the auxiliary classifiers.
        auxiliary_heads: whether the auxiliary classifiers exist.
        dropout_rate: dropout rate before the last dense layer in training (stream ``dropout``).
        auxiliary_dropout_rate: dropout rate between the dense layers of auxiliary classifiers.
        dtype: dtype of the computation.
    """

    num_classes: int = 1000
    form: Form = "torchvision"
    auxiliary_heads: bool = True
    dropout_rate: float = 0.2
    auxiliary_dropout_rate: float = 0.7
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.form not in get_args(Form):
            raise UserError(f"form is {self.form!r}; expected 'caffe' or 'torchvision'")
        super().__post_init__()

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits."""
        return self.full_output(x, train).logits

    @nn.compact
    def full_output(self, x: Float[Array, "N H W C"], train: bool = False) -> ModelOutput:
        """Computes the logits, in training also those of the auxiliary heads."""
        caffe = self.form == "caffe"

        def unit(x, name, features, size, stride=1):
            layer = _unit(self.form, features, size, name=name, dtype=self.dtype, stride=stride)
            return layer(x, train)

        def halve(x, window=3):
            return max_pool(x, (window, window), (2, 2), ceil_mode=True)

        x = halve(unit(x, "conv1", 64, 7, stride=2))
        x = local_response_norm(x) if caffe else x
        x = unit(unit(x, "conv2", 64, 1), "conv3", 192, 3)
        x = halve(local_response_norm(x) if caffe else x)
        auxiliary = []
        for name, widths in BLOCKS.items():
            block = InceptionBlock(widths, self.form, self.dtype, name=f"inception{name}")
            x = block(x, train)
            if name in AUXILIARY and self.auxiliary_heads and (train or self.is_initializing()):
                head = AuxiliaryHead(
                    self.num_classes,
                    self.form,
                    self.auxiliary_dropout_rate,
                    self.dtype,
                    name=AUXILIARY[name],
                )
                auxiliary.append(head(x, train))
            if name == "3b":
                x = halve(x)
            elif name == "4e":
                x = halve(x, 3 if caffe else 2)
        x = nn.Dropout(self.dropout_rate)(global_avg_pool(x), deterministic=not train)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ModelOutput(logits, tuple(auxiliary) if train else ())


_AT_224: dict[str, Any] = {
    "input_shape": (224, 224, 3),
    "num_classes": 1000,
    "normalisation": INCEPTION_STATISTICS,
}


@register_model(
    "googlenet",
    **_AT_224,
    source="szegedy2014, ioffe2015",
    aliases=("googlenet_torchvision", "googlenet_bn"),
)
def googlenet(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    auxiliary_heads: bool = True,
    dropout_rate: float = 0.2,
    auxiliary_dropout_rate: float = 0.7,
) -> nn.Module:
    """GoogLeNet in torchvision's form, with batch normalisation and 3x3 in place of 5x5."""
    return GoogLeNet(
        num_classes, "torchvision", auxiliary_heads, dropout_rate, auxiliary_dropout_rate, dtype
    )


@register_model(
    "googlenet_caffe",
    **_AT_224,
    source="szegedy2014, jia2014",
    aliases=("inception_v1", "bvlc_googlenet"),
)
def googlenet_caffe(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    auxiliary_heads: bool = True,
    dropout_rate: float = 0.4,
    auxiliary_dropout_rate: float = 0.7,
) -> nn.Module:
    """GoogLeNet of 2014 in Caffe's form, with biases and local response normalisation."""
    return GoogLeNet(
        num_classes, "caffe", auxiliary_heads, dropout_rate, auxiliary_dropout_rate, dtype
    )
