"""VGG-like network for CIFAR [molchanov2017] with binary or sparse variational dropout."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import PLAIN, LayerKind, SparseVDLayers, max_pool
from adaptive_nets.layers.conv_norm import batch_norm
from adaptive_nets.layers.sparse_vd import Parameterisation
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational.sparsity import THRESHOLD

_CIFAR10 = {"input_shape": (32, 32, 3), "num_classes": 10}
_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_EPSILON = 1e-3


class VGGCifar(nn.Module):
    """VGG-like network: thirteen 3x3 convolutions with BN and ReLU, two dense layers.

    At ``width=1`` it has 14,977,728 weights for ten classes, excluding biases and normalisation.

    Attributes:
        num_classes: number of logits.
        width: multiplier k of all widths, which are rounded down.
        layers: factory of the convolutions and dense layers.
        dropout: whether binary dropout is applied in training (stream ``dropout``), with the rates
            of the dense network of [molchanov2017]: 0.3 after the first convolution, 0.4 after
            other convolutions not followed by pooling, 0.5 before the last dense layer.
        dtype: dtype of the computation.
    """

    num_classes: int = 10
    width: float = 1.0
    layers: LayerKind = PLAIN
    dropout: bool = True
    dtype: Any = jnp.float32

    def __post_init__(self):
        if int(64 * self.width) < 1:
            raise UserError(f"width is {self.width}; expected at least 1/64, for one channel")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "N 32 32 C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images.

        Raises:
            UserError: the images are not 32x32.
        """
        if x.shape[1:3] != (32, 32):
            raise UserError(f"images are {x.shape[1]}x{x.shape[2]}; this network expects 32x32")
        options = {"train": train, "dtype": self.dtype}

        def normalise(x, name):
            return nn.relu(batch_norm(train, name=name, epsilon=_EPSILON, dtype=self.dtype)(x))

        def drop(x, rate):
            return nn.Dropout(rate)(x, deterministic=not train) if self.dropout else x

        padding = ((1, 1), (1, 1))
        for stage, (channels, repeats) in enumerate(_STAGES, start=1):
            for place in range(1, repeats + 1):
                name = f"conv{stage}_{place}"
                width = int(channels * self.width)
                x = self.layers.conv(width, (3, 3), name=name, padding=padding, **options)(x)
                x = normalise(x, f"bn{stage}_{place}")
                if place < repeats:
                    x = drop(x, 0.3 if stage == 1 else 0.4)
            x = max_pool(x, (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = self.layers.dense(int(512 * self.width), name="fc1", **options)(x)
        x = drop(normalise(x, "bn_fc1"), 0.5)
        return self.layers.dense(self.num_classes, name="fc2", **options)(x)


@register_model(
    "vgg_cifar10",
    **_CIFAR10,
    source="simonyan2014, molchanov2017",
    aliases=("vgg_like", "vgg_like_cifar10"),
)
def vgg_cifar10(
    *, num_classes: int, dtype: Any = jnp.float32, width: float = 1.0, dropout: bool = True
) -> nn.Module:
    """VGG-like network for CIFAR with binary dropout and width multiplier ``width``."""
    return VGGCifar(num_classes=num_classes, width=width, dropout=dropout, dtype=dtype)


@register_model(
    "vgg_cifar10_sparse_vd",
    **_CIFAR10,
    source="molchanov2017",
    aliases=("vgg_like_sparse_vd", "vgg_like_cifar10_sparse_vd"),
)
def vgg_cifar10_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    width: float = 1.0,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = False,
    clip_noise: bool = True,
    parameterisation: Parameterisation = "additive",
) -> nn.Module:
    """VGG-like network for CIFAR with sparse variational dropout in every layer.

    The paper's code uses ``log_sigma2_init = -15`` when starting from a trained dense network.
    """
    layers = SparseVDLayers(
        log_sigma2_init, threshold, mask_in_training, clip_noise, parameterisation
    )
    return VGGCifar(num_classes=num_classes, width=width, layers=layers, dropout=False, dtype=dtype)
