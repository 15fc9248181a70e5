"""Inception-v4 with the module and parameter names of timm."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.pooling import global_avg_pool
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
from adaptive_nets.models.registry import register_model

_AVERAGE = Pooling("avg", count_include_pad=False)

# 3x299x299 -> 64x147x147.
_STEM: Branch = (
    conv("features_0", 32, 3, stride=2, valid=True),
    conv("features_1", 32, 3, valid=True),
    conv("features_2", 64, 3),
)

# The rest of the stem, 64x147x147 -> 160x73x73 -> 192x71x71 -> 384x35x35.
_MIXED_3A: tuple[Branch, ...] = (
    (REDUCE_BY_MAXIMUM,),
    (conv("conv", 96, 3, stride=2, valid=True),),
)
_MIXED_4A: tuple[Branch, ...] = (
    (conv("branch0_0", 64), conv("branch0_1", 96, 3, valid=True)),
    (
        conv("branch1_0", 64),
        conv("branch1_1", 64, (1, 7)),
        conv("branch1_2", 64, (7, 1)),
        conv("branch1_3", 96, 3, valid=True),
    ),
)
_MIXED_5A: tuple[Branch, ...] = (
    (conv("conv", 192, 3, stride=2, valid=True),),
    (REDUCE_BY_MAXIMUM,),
)

_MODULE_A: tuple[Branch, ...] = (
    (conv("branch0", 96),),
    (conv("branch1_0", 64), conv("branch1_1", 96, 3)),
    (conv("branch2_0", 64), conv("branch2_1", 96, 3), conv("branch2_2", 96, 3)),
    (_AVERAGE, conv("branch3_1", 96)),
)
_REDUCTION_A: tuple[Branch, ...] = (
    (conv("branch0", 384, 3, stride=2, valid=True),),
    (
        conv("branch1_0", 192),
        conv("branch1_1", 224, 3),
        conv("branch1_2", 256, 3, stride=2, valid=True),
    ),
    (REDUCE_BY_MAXIMUM,),
)
_MODULE_B: tuple[Branch, ...] = (
    (conv("branch0", 384),),
    (conv("branch1_0", 192), conv("branch1_1", 224, (1, 7)), conv("branch1_2", 256, (7, 1))),
    (
        conv("branch2_0", 192),
        conv("branch2_1", 192, (7, 1)),
        conv("branch2_2", 224, (1, 7)),
        conv("branch2_3", 224, (7, 1)),
        conv("branch2_4", 256, (1, 7)),
    ),
    (_AVERAGE, conv("branch3_1", 128)),
)
_REDUCTION_B: tuple[Branch, ...] = (
    (conv("branch0_0", 192), conv("branch0_1", 192, 3, stride=2, valid=True)),
    (
        conv("branch1_0", 256),
        conv("branch1_1", 256, (1, 7)),
        conv("branch1_2", 320, (7, 1)),
        conv("branch1_3", 320, 3, stride=2, valid=True),
    ),
    (REDUCE_BY_MAXIMUM,),
)


def _fork(prefix: str) -> Fork:
    return Fork(((conv(f"{prefix}a", 256, (1, 3)),), (conv(f"{prefix}b", 256, (3, 1)),)))


_MODULE_C: tuple[Branch, ...] = (
    (conv("branch0", 256),),
    (conv("branch1_0", 384), _fork("branch1_1")),
    (
        conv("branch2_0", 384),
        conv("branch2_1", 448, (3, 1)),
        conv("branch2_2", 512, (1, 3)),
        _fork("branch2_3"),
    ),
    (_AVERAGE, conv("branch3_1", 256)),
)

# Module i is named ``features_{i + 3}``, after the stem's three convolutions.
_MODULES = (
    _MIXED_3A,
    _MIXED_4A,
    _MIXED_5A,
    *(_MODULE_A,) * 4,
    _REDUCTION_A,
    *(_MODULE_B,) * 7,
    _REDUCTION_B,
    *(_MODULE_C,) * 3,
)


class InceptionV4(nn.Module):
    """Inception-v4 (szegedy2016, figures 3-9), without residual connections.

    Average pools in modules exclude their padding. Convolutions start from He's fan-out
    initialisation, the classifier from LeCun's.

    Attributes:
        num_classes: number of outputs K.
        dropout_rate: dropout rate before the classifier (stream ``dropout``), 0.2 in the paper.
        dtype: dtype of the computation.
    """

    num_classes: int = 1000
    dropout_rate: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits."""
        x = join_branches((_STEM,), x, conv_norm_units(self.dtype, train))
        for number, branches in enumerate(_MODULES, start=len(_STEM)):
            x = InceptionModule(branches, dtype=self.dtype, name=f"features_{number}")(x, train)
        x = nn.Dropout(self.dropout_rate)(global_avg_pool(x), deterministic=not train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="last_linear")(x)


@register_model(
    "inception_v4",
    input_shape=(299, 299, 3),
    num_classes=1000,
    source="szegedy2016",
    normalisation=INCEPTION_STATISTICS,
)
def inception_v4(
    *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.2
) -> nn.Module:
    """Inception-v4."""
    return InceptionV4(num_classes=num_classes, dropout_rate=dropout_rate, dtype=dtype)
