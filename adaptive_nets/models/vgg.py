"""VGG-11, 13, 16 and 19, without and with batch normalisation [simonyan2014]."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers import adaptive_avg_pool, max_pool
from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.models.registry import register_model

WIDTHS = (64, 128, 256, 512, 512)

# Depth -> convolutions in each of the five stages: the paper's A, B, D and E.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """VGG: five stages of 3x3 convolutions with ReLU and max pooling, three dense layers.

    Convolutions start He-normal (fan-out), dense layers N(0, 0.01²). Sub-modules are named as in
    torchvision. The first dense layer flattens positions before channels, torchvision's channels
    first. Adaptive average pooling to 7x7 admits any input of at least 32x32.

    Attributes:
        convolutions: number of convolutions in each stage.
        num_classes: number of logits.
        batch_norm: whether batch normalisation follows every convolution; biases are kept.
        dropout_rate: dropout rate after both hidden dense layers in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    convolutions: tuple[int, ...]
    num_classes: int = 1000
    batch_norm: bool = False
    dropout_rate: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""

        def dense(features, index):
            return nn.Dense(
                features,
                dtype=self.dtype,
                kernel_init=initializers.normal(0.01),
                name=f"classifier_{index}",
            )

        index = 0  # index in torchvision's sequence, which also counts ReLU and pooling
        for width, repeats in zip(WIDTHS, self.convolutions, strict=True):
            for _ in range(repeats):
                name = f"features_{index}"
                x = conv(width, (3, 3), name=name, use_bias=True, dtype=self.dtype)(x)
                if self.batch_norm:
                    x = batch_norm(train, name=f"features_{index + 1}", dtype=self.dtype)(x)
                x = nn.relu(x)
                index += 3 if self.batch_norm else 2
            x = max_pool(x, (2, 2))
            index += 1
        x = adaptive_avg_pool(x, (7, 7))
        x = x.reshape(x.shape[0], -1)
        for index in (0, 3):
            x = nn.relu(dense(4096, index)(x))
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return dense(self.num_classes, 6)(x)


def _register(depth: int, letter: str, *, normed: bool) -> None:
    def build(
        *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.5
    ) -> nn.Module:
        return VGG(CONVOLUTIONS[depth], num_classes, normed, dropout_rate, dtype)

    also = "; batch normalisation after every convolution" if normed else ""
    build.__doc__ = f"VGG-{depth}, configuration {letter}{also}."
    register_model(
        f"vgg{depth}_bn" if normed else f"vgg{depth}",
        input_shape=(224, 224, 3),
        num_classes=1000,
        source="simonyan2014, ioffe2015" if normed else "simonyan2014",
        aliases=(f"vgg_{depth}_bn",) if normed else (f"vgg_{depth}",),
    )(build)


for _depth, _letter in ((11, "A"), (13, "B"), (16, "D"), (19, "E")):
    _register(_depth, _letter, normed=False)
    _register(_depth, _letter, normed=True)
