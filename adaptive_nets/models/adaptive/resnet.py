"""Pre-activation residual networks of adaptive depth for ImageNet.

ACT and SACT [figurnov2017] and their probabilistic counterpart [figurnov2018] over the networks of
`resnet_v2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import flax.linen as nn

from adaptive_nets.halting import conv_flops
from adaptive_nets.models import resnet_v2
from adaptive_nets.models.adaptive.blocks import Rule
from adaptive_nets.models.adaptive.builders import SOURCES, builder
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork, HeadOptions
from adaptive_nets.models.adaptive.units import BottleneckUnits, MapSize
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import STAGES
from adaptive_nets.models.resnet_v2 import ResNetV2
from adaptive_nets.models.stages import per_stage


class AdaptiveResNetV2(AdaptiveResidualNetwork, ResNetV2):
    """`ResNetV2` whose stages halt; attributes of both."""

    unit_name = staticmethod(resnet_v2.unit_name)

    @property
    def units(self) -> BottleneckUnits:
        """See `AdaptiveResidualNetwork`."""
        return BottleneckUnits(
            norms=("norm1", "norm2", "norm3"),
            convs=("conv1", "conv2", "conv3"),
            epsilon=1e-5,
            negative_slope=0.0,
        )

    @property
    def head_options(self) -> HeadOptions:
        """See `AdaptiveResidualNetwork`."""
        return HeadOptions(momentum=self.momentum)

    @nn.nowrap
    def stem_flops(self, map_size: MapSize, image_size: MapSize | None) -> int:
        """See `AdaptiveResidualNetwork`."""
        height, width = image_size or (4 * map_size[0], 4 * map_size[1])
        positions = math.ceil(height / 2) * math.ceil(width / 2)
        return int(conv_flops(positions, (7, 7), 3, self.widths[0]))


def _make(depth: int) -> Callable[..., nn.Module]:
    def make(*, stage_sizes, widths, **options) -> AdaptiveResNetV2:
        return AdaptiveResNetV2(
            stage_sizes=per_stage("stage_sizes", stage_sizes, STAGES[depth]),
            widths=per_stage("widths", widths, AdaptiveResNetV2.widths),
            **options,
        )

    return make


for _rule in get_args(Rule):
    for _depth in resnet_v2.DEPTHS:
        register_model(
            f"resnet{_depth}_{_rule}",
            input_shape=(224, 224, 3),
            num_classes=1001,
            source=SOURCES[_rule],
            aliases=(f"resnetv2_{_depth}_{_rule}",),
            adapts=(f"resnetv2_{_depth}", _rule),
        )(builder(_rule, _make(_depth), f"Pre-activation ResNet-{_depth}"))
