"""Inception-v3 with the module and parameter names of torchvision."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.pooling import avg_pool, global_avg_pool
from adaptive_nets.models.inception_blocks import (
    REDUCE_BY_MAXIMUM,
    Branch,
    Fork,
    InceptionModule,
    Pooling,
    conv,
    conv_norm_units,
    join_branches,
)
from adaptive_nets.models.normalisation import INCEPTION_STATISTICS
from adaptive_nets.models.output import ModelOutput
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

# 3x299x299 -> 192x35x35.
_STEM: Branch = (
    conv("Conv2d_1a_3x3", 32, 3, stride=2, valid=True),
    conv("Conv2d_2a_3x3", 32, 3, valid=True),
    conv("Conv2d_2b_3x3", 64, 3),
    REDUCE_BY_MAXIMUM,
    conv("Conv2d_3b_1x1", 80),
    conv("Conv2d_4a_3x3", 192, 3, valid=True),
    REDUCE_BY_MAXIMUM,
)

# Input size of the auxiliary classifier for images of 299x299, the smallest that it accepts.
_AUXILIARY_SIDE = 17


def _module_a(pool_features: int, average: Pooling) -> tuple[Branch, ...]:
    return (
        (conv("branch1x1", 64),),
        (conv("branch5x5_1", 48), conv("branch5x5_2", 64, 5)),
        (
            conv("branch3x3dbl_1", 64),
            conv("branch3x3dbl_2", 96, 3),
            conv("branch3x3dbl_3", 96, 3),
        ),
        (average, conv("branch_pool", pool_features)),
    )


_REDUCTION_B: tuple[Branch, ...] = (
    (conv("branch3x3", 384, 3, stride=2, valid=True),),
    (
        conv("branch3x3dbl_1", 64),
        conv("branch3x3dbl_2", 96, 3),
        conv("branch3x3dbl_3", 96, 3, stride=2, valid=True),
    ),
    (REDUCE_BY_MAXIMUM,),
)


def _module_c(width: int, average: Pooling) -> tuple[Branch, ...]:
    return (
        (conv("branch1x1", 192),),
        (
            conv("branch7x7_1", width),
            conv("branch7x7_2", width, (1, 7)),
            conv("branch7x7_3", 192, (7, 1)),
        ),
        (
            conv("branch7x7dbl_1", width),
            conv("branch7x7dbl_2", width, (7, 1)),
            conv("branch7x7dbl_3", width, (1, 7)),
            conv("branch7x7dbl_4", width, (7, 1)),
            conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (average, conv("branch_pool", 192)),
    )


_REDUCTION_D: tuple[Branch, ...] = (
    (conv("branch3x3_1", 192), conv("branch3x3_2", 320, 3, stride=2, valid=True)),
    (
        conv("branch7x7x3_1", 192),
        conv("branch7x7x3_2", 192, (1, 7)),
        conv("branch7x7x3_3", 192, (7, 1)),
        conv("branch7x7x3_4", 192, 3, stride=2, valid=True),
    ),
    (REDUCE_BY_MAXIMUM,),
)


def _fork(prefix: str) -> Fork:
    return Fork(((conv(f"{prefix}a", 384, (1, 3)),), (conv(f"{prefix}b", 384, (3, 1)),)))


def _module_e(average: Pooling) -> tuple[Branch, ...]:
    return (
        (conv("branch1x1", 320),),
        (conv("branch3x3_1", 384), _fork("branch3x3_2")),
        (
            conv("branch3x3dbl_1", 448),
            conv("branch3x3dbl_2", 384, 3),
            _fork("branch3x3dbl_3"),
        ),
        (average, conv("branch_pool", 192)),
    )


class AuxiliaryClassifier(nn.Module):
    """Auxiliary classifier on a 17x17 map, 3,326,696 weights.

    Layers: average pool 5x5 at stride 3, conv1x1, conv5x5, mean, dense.

    Attributes:
        num_classes: number of outputs K.
        dtype: dtype of the computation.
    """

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits.

        Raises:
            UserError: the map is too small for the 5x5 convolution.
        """
        if min(x.shape[1:3]) < _AUXILIARY_SIDE:
            raise UserError(
                f"inception_v3's auxiliary head got a map of {x.shape[1]}x{x.shape[2]}; expected "
                f"{_AUXILIARY_SIDE}x{_AUXILIARY_SIDE} or more (images of 299x299), or "
                f"auxiliary_heads=False"
            )
        x = avg_pool(x, (5, 5), (3, 3))
        steps = (conv("conv0", 128), conv("conv1", 768, 5, valid=True))
        x = join_branches((steps,), x, conv_norm_units(self.dtype, train))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(global_avg_pool(x))


class InceptionV3(nn.Module):
    """Inception-v3 (szegedy2015, table 1 and figures 5-7, as published with weights).

    Convolutions start from He's fan-out initialisation, the classifiers from LeCun's.

    Attributes:
        num_classes: number of outputs K.
        auxiliary_heads: whether the classifier on 768x17x17 exists; it runs in training only.
        count_include_pad: whether average pools in modules include their padding: True in
            torchvision, False in TensorFlow.
        dropout_rate: dropout rate before the classifier (stream ``dropout``).
        dtype: dtype of the computation.
    """

    num_classes: int = 1000
    auxiliary_heads: bool = True
    count_include_pad: bool = True
    dropout_rate: float = 0.5
    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits."""
        return self.full_output(x, train).logits

    @nn.compact
    def full_output(self, x: Float[Array, "N H W C"], train: bool = False) -> ModelOutput:
        """Computes the logits, in training also those of the auxiliary head."""
        average = Pooling("avg", count_include_pad=self.count_include_pad)
        x = join_branches((_STEM,), x, conv_norm_units(self.dtype, train))
        for name, branches in (
            ("Mixed_5b", _module_a(32, average)),
            ("Mixed_5c", _module_a(64, average)),
            ("Mixed_5d", _module_a(64, average)),
            ("Mixed_6a", _REDUCTION_B),
            ("Mixed_6b", _module_c(128, average)),
            ("Mixed_6c", _module_c(160, average)),
            ("Mixed_6d", _module_c(160, average)),
            ("Mixed_6e", _module_c(192, average)),
        ):
            x = InceptionModule(branches, dtype=self.dtype, name=name)(x, train)
        auxiliary_logits = self._auxiliary(x, train)
        for name, branches in (
            ("Mixed_7a", _REDUCTION_D),
            ("Mixed_7b", _module_e(average)),
            ("Mixed_7c", _module_e(average)),
        ):
            x = InceptionModule(branches, dtype=self.dtype, name=name)(x, train)
        x = nn.Dropout(self.dropout_rate)(global_avg_pool(x), deterministic=not train)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ModelOutput(logits, auxiliary_logits if train else ())

    def _auxiliary(self, x: Array, train: bool) -> tuple[Array, ...]:
        if not self.auxiliary_heads or not (train or self.is_initializing()):
            return ()
        head = AuxiliaryClassifier(self.num_classes, dtype=self.dtype, name="AuxLogits")
        if not train:
            # The head's parameters do not depend on the image size, and test images may be
            # smaller than the head accepts.
            x = jnp.zeros((1, _AUXILIARY_SIDE, _AUXILIARY_SIDE, x.shape[-1]), x.dtype)
        return (head(x, train),)


@register_model(
    "inception_v3",
    input_shape=(299, 299, 3),
    num_classes=1000,
    source="szegedy2015",
    normalisation=INCEPTION_STATISTICS,
    aliases=("inception3",),
)
def inception_v3(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    auxiliary_heads: bool = True,
    count_include_pad: bool = True,
    dropout_rate: float = 0.5,
) -> nn.Module:
    """Inception-v3 in torchvision's form, with the auxiliary classifier."""
    return InceptionV3(
        num_classes=num_classes,
        auxiliary_heads=auxiliary_heads,
        count_include_pad=count_include_pad,
        dropout_rate=dropout_rate,
        dtype=dtype,
    )
