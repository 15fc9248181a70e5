"""Post-activation residual networks of adaptive depth for ImageNet.

ACT, SACT [figurnov2017] and their probabilistic counterpart [figurnov2018] over the networks of
`resnet`, whose trained weights they take unchanged. The papers use pre-activation networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import flax.linen as nn

from adaptive_nets.halting import conv_flops
from adaptive_nets.models import resnet_cifar
from adaptive_nets.models.adaptive.blocks import Rule
from adaptive_nets.models.adaptive.builders import SOURCES, builder
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork
from adaptive_nets.models.adaptive.units import (
    MapSize,
    PostActivationBasicUnits,
    PostActivationBottleneckUnits,
)
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import IMAGENET, STAGES, ResNet, UnitSettings
from adaptive_nets.models.stages import per_stage


class AdaptivePostActivationResNet(AdaptiveResidualNetwork, ResNet):
    """`ResNet` whose stages halt; attributes of both."""

    unit_name = staticmethod(resnet_cifar.unit_name)

    @property
    def units(self) -> PostActivationBasicUnits | PostActivationBottleneckUnits:
        """See `AdaptiveResidualNetwork`."""
        if self.unit.bottleneck:
            return PostActivationBottleneckUnits(
                norms=("bn1", "bn2", "bn3"),
                convs=("conv1", "conv2", "conv3"),
                epsilon=1e-5,
                stride_in_first=self.unit.stride_position == "1x1",
            )
        return PostActivationBasicUnits(
            norms=("bn1", "bn2"), convs=("conv1", "conv2"), epsilon=1e-5, projection=True
        )

    @nn.nowrap
    def stem_flops(self, map_size: MapSize, image_size: MapSize | None) -> int:
        """See `AdaptiveResidualNetwork`."""
        height, width = image_size or (4 * map_size[0], 4 * map_size[1])
        positions = math.ceil(height / 2) * math.ceil(width / 2)
        return int(conv_flops(positions, (7, 7), 3, self.widths[0]))


def _make(depth: int) -> Callable[..., nn.Module]:
    def make(*, stage_sizes, widths, **options) -> AdaptivePostActivationResNet:
        return AdaptivePostActivationResNet(
            stage_sizes=per_stage("stage_sizes", stage_sizes, STAGES[depth]),
            widths=per_stage("widths", widths, AdaptivePostActivationResNet.widths),
            unit=UnitSettings(bottleneck=depth >= 50),
            **options,
        )

    return make


for _rule in get_args(Rule):
    for _depth in STAGES:
        register_model(
            f"resnetv1_{_depth}_{_rule}",
            **IMAGENET,
            source=f"he2015, {SOURCES[_rule]}",
            adapts=(f"resnet{_depth}", _rule),
        )(builder(_rule, _make(_depth), f"ResNet-{_depth}"))
