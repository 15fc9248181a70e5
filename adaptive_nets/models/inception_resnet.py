"""Inception-ResNet-v1 and v2: Inception modules with residual connections.

Parameter names of v2 are those of timm; v1 follows the same scheme.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.pooling import global_avg_pool
from adaptive_nets.models.inception_blocks import (
    REDUCE_BY_MAXIMUM,
    Branch,
    InceptionModule,
    Pooling,
    ResidualInceptionModule,
    conv,
    conv_norm_units,
    join_branches,
)
from adaptive_nets.models.normalisation import INCEPTION_STATISTICS
from adaptive_nets.models.registry import register_model

Branches = tuple[Branch, ...]

# Factors of the residuals in modules on 35x35, 17x17 and 8x8 maps.
_SCALES = (0.17, 0.10, 0.20)

# First part of both stems, 3x299x299 -> 192x71x71.
_STEM: Branch = (
    conv("conv2d_1a", 32, 3, stride=2, valid=True),
    conv("conv2d_2a", 32, 3, valid=True),
    conv("conv2d_2b", 64, 3),
    REDUCE_BY_MAXIMUM,
    conv("conv2d_3b", 80),
    conv("conv2d_4a", 192, 3, valid=True),
)
_MIXED_5B: Branches = (
    (conv("branch0", 96),),
    (conv("branch1_0", 48), conv("branch1_1", 64, 5)),
    (conv("branch2_0", 64), conv("branch2_1", 96, 3), conv("branch2_2", 96, 3)),
    (Pooling("avg", count_include_pad=False), conv("branch3_1", 64)),
)


def _block35(last: tuple[int, int]) -> Branches:
    return (
        (conv("branch0", 32),),
        (conv("branch1_0", 32), conv("branch1_1", 32, 3)),
        (conv("branch2_0", 32), conv("branch2_1", last[0], 3), conv("branch2_2", last[1], 3)),
    )


def _pair(first: int, widths: tuple[int, int, int], length: int) -> Branches:
    """Returns the branches 1x1 | 1x1, 1xlength, lengthx1 of the modules on 17x17 and 8x8."""
    return (
        (conv("branch0", first),),
        (
            conv("branch1_0", widths[0]),
            conv("branch1_1", widths[1], (1, length)),
            conv("branch1_2", widths[2], (length, 1)),
        ),
    )


def _reduction_a(single: int, triple: tuple[int, int, int]) -> Branches:
    """Returns reduction A, 35x35 -> 17x17 (szegedy2016, figure 7 and table 1: n and k, l, m)."""
    return (
        (conv("branch0", single, 3, stride=2, valid=True),),
        (
            conv("branch1_0", triple[0]),
            conv("branch1_1", triple[1], 3),
            conv("branch1_2", triple[2], 3, stride=2, valid=True),
        ),
        (REDUCE_BY_MAXIMUM,),
    )


def _reduction_b(second: int, third: tuple[int, int]) -> Branches:
    """Returns reduction B, 17x17 -> 8x8."""
    return (
        (conv("branch0_0", 256), conv("branch0_1", 384, 3, stride=2, valid=True)),
        (conv("branch1_0", 256), conv("branch1_1", second, 3, stride=2, valid=True)),
        (
            conv("branch2_0", 256),
            conv("branch2_1", third[0], 3),
            conv("branch2_2", third[1], 3, stride=2, valid=True),
        ),
        (REDUCE_BY_MAXIMUM,),
    )


@dataclasses.dataclass(frozen=True)
class Block:
    """Specification of one module.

    Attributes:
        name: name of the linen module.
        branches: steps of each branch.
        scale: factor of the residual; None for a module without residual connection.
        activation: whether ReLU follows the sum.
    """

    name: str
    branches: Branches
    scale: float | None = None
    activation: bool = True


def _repeated(prefix: str, times: int, branches: Branches, scale: float) -> tuple[Block, ...]:
    return tuple(Block(f"{prefix}_{i}", branches, scale) for i in range(times))


_STEM_V1: Branch = (*_STEM, conv("conv2d_4b", 256, 3, stride=2, valid=True))
_BLOCKS_V1 = (
    *_repeated("repeat", 5, _block35((32, 32)), _SCALES[0]),
    Block("mixed_6a", _reduction_a(384, (192, 192, 256))),
    *_repeated("repeat_1", 10, _pair(128, (128, 128, 128), 7), _SCALES[1]),
    Block("mixed_7a", _reduction_b(256, (256, 256))),
    *_repeated("repeat_2", 5, _pair(192, (192, 192, 192), 3), _SCALES[2]),
)

_STEM_V2: Branch = (*_STEM, REDUCE_BY_MAXIMUM)
_BLOCK8_V2 = _pair(192, (192, 224, 256), 3)
_BLOCKS_V2 = (
    Block("mixed_5b", _MIXED_5B),
    *_repeated("repeat", 10, _block35((48, 64)), _SCALES[0]),
    Block("mixed_6a", _reduction_a(384, (256, 256, 384))),
    *_repeated("repeat_1", 20, _pair(192, (128, 160, 192), 7), _SCALES[1]),
    Block("mixed_7a", _reduction_b(288, (288, 320))),
    *_repeated("repeat_2", 9, _BLOCK8_V2, _SCALES[2]),
    Block("block8", _BLOCK8_V2, scale=1.0, activation=False),
)


class InceptionResNet(nn.Module):
    """Inception-ResNet: stem, modules with and without residual connections, classifier.

    Convolutions start from He's fan-out initialisation. The linear convolutions at the end of
    residual branches and the classifier start from LeCun's.

    Attributes:
        stem: convolutions and poolings in sequence.
        blocks: modules in order.
        head: convolutions after the last module; may be empty.
        num_classes: number of outputs K.
        dropout_rate: dropout rate before the classifier (stream ``dropout``), 0.2 in the paper.
        dtype: dtype of the computation.
    """

    stem: Branch
    blocks: tuple[Block, ...]
    head: Branch = ()
    num_classes: int = 1000
    dropout_rate: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits."""
        apply = conv_norm_units(self.dtype, train)
        x = join_branches((self.stem,), x, apply)
        for block in self.blocks:
            if block.scale is None:
                module = InceptionModule(block.branches, dtype=self.dtype, name=block.name)
            else:
                module = ResidualInceptionModule(
                    block.branches,
                    block.scale,
                    activation=block.activation,
                    dtype=self.dtype,
                    name=block.name,
                )
            x = module(x, train)
        x = join_branches((self.head,), x, apply)
        x = nn.Dropout(self.dropout_rate)(global_avg_pool(x), deterministic=not train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="classif")(x)


_AT_299: dict[str, Any] = {
    "input_shape": (299, 299, 3),
    "num_classes": 1000,
    "normalisation": INCEPTION_STATISTICS,
}


@register_model(
    "inception_resnet_v1",
    **_AT_299,
    source="szegedy2016",
)
def inception_resnet_v1(
    *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.2
) -> nn.Module:
    """Inception-ResNet-v1 with 5, 10 and 5 modules, as in the paper's figures."""
    return InceptionResNet(
        _STEM_V1, _BLOCKS_V1, num_classes=num_classes, dropout_rate=dropout_rate, dtype=dtype
    )


@register_model(
    "inception_resnet_v2",
    **_AT_299,
    source="szegedy2016",
)
def inception_resnet_v2(
    *, num_classes: int, dtype: Any = jnp.float32, dropout_rate: float = 0.2
) -> nn.Module:
    """Inception-ResNet-v2 as released: 10, 20 and 10 modules, wider than in the paper."""
    return InceptionResNet(
        _STEM_V2,
        _BLOCKS_V2,
        head=(conv("conv2d_7b", 1536),),
        num_classes=num_classes,
        dropout_rate=dropout_rate,
        dtype=dtype,
    )
