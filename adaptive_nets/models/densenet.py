"""DenseNets (huang2017): each layer of a block reads the outputs of all earlier layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.layers.pooling import avg_pool, global_avg_pool, max_pool
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import IMAGENET

# Depth -> layers of each block, growth rate.
SIZES = {
    121: ((6, 12, 24, 16), 32),
    161: ((6, 12, 36, 24), 48),
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
    264: ((6, 12, 64, 48), 32),
}


class DenseLayer(nn.Module):
    """Dense layer: BN - ReLU - conv3x3, preceded by BN - ReLU - conv1x1 in the bottleneck form.

    Attributes:
        growth_rate: number k of new maps; the 1x1 convolution has 4 k outputs.
        bottleneck: whether the layer has the bottleneck form.
        dropout_rate: dropout rate after every convolution in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    growth_rate: int
    bottleneck: bool = True
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N H W k"]:
        """Returns the new maps only."""
        layers = ((self.growth_rate, 3),)
        if self.bottleneck:
            layers = ((4 * self.growth_rate, 1), *layers)
        for i, (features, size) in enumerate(layers, start=1):
            x = nn.relu(batch_norm(train, name=f"norm{i}", dtype=self.dtype)(x))
            x = conv(features, (size, size), dtype=self.dtype, name=f"conv{i}")(x)
            if self.dropout_rate:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return x


class Transition(nn.Module):
    """Transition between blocks: BN - ReLU - conv1x1 - average pool 2x2.

    Attributes:
        features: number of output channels.
        dropout_rate: dropout rate after the convolution in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    features: int
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False
    ) -> Float[Array, "N H2 W2 O"]:
        """Returns the map at half the size."""
        x = nn.relu(batch_norm(train, name="norm", dtype=self.dtype)(x))
        x = conv(self.features, (1, 1), dtype=self.dtype, name="conv")(x)
        if self.dropout_rate:
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return avg_pool(x, (2, 2))


class DenseNet(nn.Module):
    """DenseNet: stem, dense blocks with transitions between them, BN - ReLU, mean, linear.

    Attributes:
        block_sizes: number of layers of each block.
        growth_rate: number k of maps that each layer adds.
        num_classes: number of logits.
        stem_features: output channels of the first convolution; 2 k if None.
        bottleneck: whether the layers have the bottleneck form.
        compression: fraction θ of the maps that a transition keeps, rounded down.
        small_images: whether the stem is one 3x3 convolution instead of conv7x7/2 - BN - ReLU -
            max pool 3/2.
        dropout_rate: dropout rate after every convolution but the first in training (stream
            ``dropout``).
        dtype: dtype of the computation.
    """

    block_sizes: tuple[int, ...]
    growth_rate: int
    num_classes: int = 1000
    stem_features: int | None = None
    bottleneck: bool = True
    compression: float = 0.5
    small_images: bool = False
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        options: dict[str, Any] = {"dropout_rate": self.dropout_rate, "dtype": self.dtype}
        x = self._stem(x, train)
        for block, size in enumerate(self.block_sizes, start=1):
            for i in range(1, size + 1):
                layer = DenseLayer(
                    self.growth_rate,
                    self.bottleneck,
                    name=f"features_denseblock{block}_denselayer{i}",
                    **options,
                )
                x = jnp.concatenate([x, layer(x, train)], axis=-1)
            if block < len(self.block_sizes):
                features = int(x.shape[-1] * self.compression)
                transition = Transition(features, name=f"features_transition{block}", **options)
                x = transition(x, train)
        name = f"features_norm{len(self.block_sizes) + 1}"
        x = nn.relu(batch_norm(train, name=name, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(global_avg_pool(x))

    def _stem(self, x: Array, train: bool) -> Array:
        features = self.stem_features or 2 * self.growth_rate
        if self.small_images:
            return conv(features, (3, 3), dtype=self.dtype, name="features_conv0")(x)
        x = conv(features, (7, 7), strides=(2, 2), dtype=self.dtype, name="features_conv0")(x)
        x = nn.relu(batch_norm(train, name="features_norm0", dtype=self.dtype)(x))
        return max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def _builder(depth: int) -> Callable[..., nn.Module]:
    block_sizes, growth_rate = SIZES[depth]

    def build(
        *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.0
    ) -> nn.Module:
        return DenseNet(
            block_sizes,
            growth_rate,
            num_classes=num_classes,
            dropout_rate=dropout_rate,
            dtype=dtype,
        )

    build.__doc__ = f"DenseNet-BC-{depth} with growth rate {growth_rate}."
    return build


for _depth in SIZES:
    register_model(
        f"densenet{_depth}", **IMAGENET, source="huang2017", aliases=(f"densenet_{_depth}",)
    )(_builder(_depth))
