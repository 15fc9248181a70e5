"""LeNet-300-100 and LeNet-5 in Caffe's form, plain and with sparse variational dropout."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import PLAIN, LayerKind, SparseVDLayers, max_pool
from adaptive_nets.models.mlp import MultilayerPerceptron
from adaptive_nets.models.registry import register_model
from adaptive_nets.variational.sparsity import THRESHOLD

_DIGITS = {"input_shape": (28, 28, 1), "num_classes": 10}


class LeNet5Caffe(nn.Module):
    """conv 20@5x5, pool, conv 50@5x5, pool, fc 500, fc: 430,500 weights for ten classes.

    Unlike the network of 1998 it takes 28x28 inputs, pools by maximum, uses ReLU (after both
    convolutions too, as in [molchanov2017]) and has no wiring table.
    """

    num_classes: int = 10
    layers: LayerKind = PLAIN
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        options = {"train": train, "dtype": self.dtype}
        x = self.layers.conv(20, (5, 5), name="conv1", padding="VALID", **options)(x)
        x = max_pool(nn.relu(x), (2, 2))
        x = self.layers.conv(50, (5, 5), name="conv2", padding="VALID", **options)(x)
        x = max_pool(nn.relu(x), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(self.layers.dense(500, name="fc1", **options)(x))
        return self.layers.dense(self.num_classes, name="fc2", **options)(x)


@register_model(
    "lenet_300_100",
    **_DIGITS,
    source="lecun1998, hansen2015",
    aliases=("lenet300", "lenet-300-100"),
)
def lenet_300_100(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """Two hidden layers of 300 and 100 units, ReLU."""
    return MultilayerPerceptron(hidden=(300, 100), num_classes=num_classes, dtype=dtype)


@register_model(
    "lenet_300_100_sparse_vd", **_DIGITS, source="molchanov2017", aliases=("lenet300_sparse_vd",)
)
def lenet_300_100_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = True,
    clip_noise: bool = True,
) -> nn.Module:
    """LeNet-300-100 with sparse variational dropout in every layer."""
    layers = SparseVDLayers(log_sigma2_init, threshold, mask_in_training, clip_noise)
    return MultilayerPerceptron(
        hidden=(300, 100), num_classes=num_classes, layers=layers, dtype=dtype
    )


@register_model(
    "lenet5_caffe",
    **_DIGITS,
    source="lecun1998, jia2014",
    aliases=("lenet_5_caffe", "lenet-5-caffe"),
)
def lenet5_caffe(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """LeNet-5 in Caffe's form: two convolutions, two dense layers, ReLU."""
    return LeNet5Caffe(num_classes=num_classes, dtype=dtype)


@register_model("lenet5_caffe_sparse_vd", **_DIGITS, source="molchanov2017")
def lenet5_caffe_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = True,
    clip_noise: bool = True,
) -> nn.Module:
    """LeNet-5-Caffe with sparse variational dropout in every layer."""
    layers = SparseVDLayers(log_sigma2_init, threshold, mask_in_training, clip_noise)
    return LeNet5Caffe(num_classes=num_classes, layers=layers, dtype=dtype)
