"""Residual networks trained with stochastic depth (huang2016).

Unit l of L survives a training step with probability p_l = 1 - (l / L) (1 - p_L), with one draw per
mini-batch. A dropped branch is not computed, and its running statistics stay unchanged. At test
time every branch is computed and multiplied by p_l.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import IMAGENET, STAGES, ResNet, StridePosition, UnitSettings
from adaptive_nets.models.resnet_cifar import CifarResNet, Shortcut, units_per_stage

# (depth, data set) of the networks for 32x32 images; the paper has 110 and 1202 layers for CIFAR
# and 152 for SVHN.
SMALL = (
    (110, "cifar10", 10),
    (110, "cifar100", 100),
    (152, "svhn", 10),
    (1202, "cifar10", 10),
    (1202, "cifar100", 100),
)


def _small(depth: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        depth: int = depth,
        last_survival: float = 0.5,
        shortcut: Shortcut = "average",
        use_bias: bool = True,
        scan_units: bool | None = None,
    ) -> nn.Module:
        return CifarResNet(
            (units_per_stage(depth),) * 3,
            num_classes=num_classes,
            shortcut=shortcut,
            zeros="after",
            use_bias=use_bias,
            last_survival=last_survival,
            scan_units=scan_units,
            dtype=dtype,
        )

    build.__doc__ = f"ResNet-{depth} for 32x32 images with stochastic depth and biases."
    return build


for _depth, _data, _classes in SMALL:
    register_model(
        f"stochastic_depth_resnet{_depth}_{_data}",
        input_shape=(32, 32, 3),
        num_classes=_classes,
        source="huang2016, he2015",
        aliases=(f"resnet{_depth}_stochastic_depth_{_data}",),
    )(_small(_depth))


@register_model("stochastic_depth_resnet152", **IMAGENET, source="huang2016, he2015")
def stochastic_depth_resnet152(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    last_survival: float = 0.5,
    stride_position: StridePosition = "3x3",
) -> nn.Module:
    """ResNet-152 with stochastic depth."""
    return ResNet(
        STAGES[152],
        num_classes=num_classes,
        unit=UnitSettings(stride_position=stride_position),
        last_survival=last_survival,
        dtype=dtype,
    )
