"""Fully connected networks."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import PLAIN, LayerKind, SparseVDLayers
from adaptive_nets.layers.sparse_vd import Parameterisation
from adaptive_nets.models.registry import register_model
from adaptive_nets.variational.sparsity import THRESHOLD

_DIGITS = {"input_shape": (28, 28, 1), "num_classes": 10}


class MultilayerPerceptron(nn.Module):
    """Multilayer perceptron with ReLU on flattened images.

    Attributes:
        hidden: widths of the hidden layers.
        num_classes: number of logits.
        layers: factory of the dense layers.
        dropout_rate: dropout rate after every hidden layer in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    hidden: tuple[int, ...]
    num_classes: int = 10
    layers: LayerKind = PLAIN
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N ..."], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        x = x.reshape(x.shape[0], -1)
        options = {"train": train, "dtype": self.dtype}
        for i, width in enumerate(self.hidden, start=1):
            x = nn.relu(self.layers.dense(width, name=f"fc{i}", **options)(x))
            if self.dropout_rate:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return self.layers.dense(self.num_classes, name=f"fc{len(self.hidden) + 1}", **options)(x)


@register_model("mlp_4x1000", **_DIGITS, source="molchanov2017")
def mlp_4x1000(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    hidden: tuple[int, ...] = (1000,) * 4,
    dropout_rate: float = 0.5,
) -> nn.Module:
    """Perceptron with four hidden layers of 1000 units and binary dropout, for random labels."""
    return MultilayerPerceptron(
        hidden=hidden, num_classes=num_classes, dropout_rate=dropout_rate, dtype=dtype
    )


@register_model("mlp_4x1000_sparse_vd", **_DIGITS, source="molchanov2017")
def mlp_4x1000_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    hidden: tuple[int, ...] = (1000,) * 4,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = True,
    clip_noise: bool = True,
    parameterisation: Parameterisation = "additive",
) -> nn.Module:
    """Perceptron with four hidden layers of 1000 units and sparse variational dropout."""
    layers = SparseVDLayers(
        log_sigma2_init, threshold, mask_in_training, clip_noise, parameterisation
    )
    return MultilayerPerceptron(hidden=hidden, num_classes=num_classes, layers=layers, dtype=dtype)


_SMALL_DIGITS = {"input_shape": (8, 8, 1), "num_classes": 10}


@register_model("linear_mnist", **_DIGITS, source="molchanov2017")
@register_model("linear_digits", **_SMALL_DIGITS, source="molchanov2017")
def linear(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """Linear classifier of pixels, multinomial logistic regression."""
    return MultilayerPerceptron(hidden=(), num_classes=num_classes, dtype=dtype)


@register_model("linear_mnist_sparse_vd", **_DIGITS, source="molchanov2017")
@register_model("linear_digits_sparse_vd", **_SMALL_DIGITS, source="molchanov2017")
def linear_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = False,
    clip_noise: bool = True,
    parameterisation: Parameterisation = "additive",
) -> nn.Module:
    """Linear classifier of pixels with sparse variational dropout, the paper's VD-ARD."""
    layers = SparseVDLayers(
        log_sigma2_init, threshold, mask_in_training, clip_noise, parameterisation
    )
    return MultilayerPerceptron(hidden=(), num_classes=num_classes, layers=layers, dtype=dtype)
