"""DenseNets for 32x32 images (huang2017, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from adaptive_nets.models.densenet import DenseNet
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

# (depth, growth rate) of the registered networks, without and with bottlenecks and compression.
PLAIN = ((40, 12), (100, 12), (100, 24))
BOTTLENECK = ((40, 12), (100, 12), (190, 40), (250, 24))


def layers_per_block(depth: int, *, bottleneck: bool) -> int:
    """Returns the number of layers in each of the three blocks of a network of this depth.

    Raises:
        UserError: the depth is not 3 n + 4, or 6 n + 4 with bottlenecks.
    """
    step = 6 if bottleneck else 3
    if depth < 4 + step or (depth - 4) % step:
        raise UserError(f"depth is {depth}; expected {step} n + 4, such as 40 or 100")
    return (depth - 4) // step


def _builder(depth: int, growth_rate: int, *, bc: bool) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        depth: int = depth,
        growth_rate: int = growth_rate,
        stem_features: int | None = None if bc else 16,
        dropout_rate: float = 0.0,
    ) -> nn.Module:
        return DenseNet(
            (layers_per_block(depth, bottleneck=bc),) * 3,
            growth_rate,
            num_classes=num_classes,
            stem_features=stem_features,
            bottleneck=bc,
            compression=0.5 if bc else 1.0,
            small_images=True,
            dropout_rate=dropout_rate,
            dtype=dtype,
        )

    form = "DenseNet-BC" if bc else "DenseNet"
    build.__doc__ = f"{form}-{depth} for 32x32 images with growth rate {growth_rate}."
    return build


for _bc, _sizes in ((False, PLAIN), (True, BOTTLENECK)):
    for _depth, _growth in _sizes:
        for _classes in (10, 100):
            _prefix = "densenet_bc" if _bc else "densenet"
            register_model(
                f"{_prefix}{_depth}_k{_growth}_cifar{_classes}",
                input_shape=(32, 32, 3),
                num_classes=_classes,
                source="huang2017",
                aliases=(f"{_prefix}_{_depth}_{_growth}_cifar{_classes}",),
            )(_builder(_depth, _growth, bc=_bc))
