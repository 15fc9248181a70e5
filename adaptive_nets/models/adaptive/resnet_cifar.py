"""Pre-activation residual networks of adaptive depth for 32x32 images.

ACT and SACT [figurnov2017] and their probabilistic counterpart [figurnov2018] over the networks of
`resnet_v2_cifar`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import flax.linen as nn

from adaptive_nets.halting import conv_flops
from adaptive_nets.models import resnet_v2_cifar
from adaptive_nets.models.adaptive.blocks import Rule
from adaptive_nets.models.adaptive.builders import SOURCES, builder
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork, HeadOptions
from adaptive_nets.models.adaptive.units import BasicUnits, MapSize
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet_cifar import unit_name, units_per_stage
from adaptive_nets.models.resnet_v2_cifar import EPSILON, SLOPE, CifarResNetV2
from adaptive_nets.models.stages import per_stage


class AdaptiveCifarResNet(AdaptiveResidualNetwork, CifarResNetV2):
    """`CifarResNetV2` whose stages halt; attributes of both."""

    unit_name = staticmethod(unit_name)

    @property
    def units(self) -> BasicUnits:
        """See `AdaptiveResidualNetwork`."""
        return BasicUnits(
            norms=("bn1", "bn2"), convs=("conv1", "conv2"), epsilon=EPSILON, negative_slope=SLOPE
        )

    @property
    def head_options(self) -> HeadOptions:
        """See `AdaptiveResidualNetwork`."""
        return HeadOptions(slope=SLOPE, epsilon=EPSILON)

    @nn.nowrap
    def stem_flops(self, map_size: MapSize, image_size: MapSize | None) -> int:
        """See `AdaptiveResidualNetwork`."""
        del image_size
        return int(conv_flops(math.prod(map_size), (3, 3), 3, self.widths[0]))


def _make(depth: int) -> Callable[..., nn.Module]:
    def make(*, stage_sizes, widths, **options) -> AdaptiveCifarResNet:
        return AdaptiveCifarResNet(
            stage_sizes=per_stage("stage_sizes", stage_sizes, (units_per_stage(depth),) * 3),
            widths=per_stage("widths", widths, AdaptiveCifarResNet.widths),
            **options,
        )

    return make


for _rule in get_args(Rule):
    for _depth in resnet_v2_cifar.DEPTHS:
        _title = f"Pre-activation ResNet-{_depth} for 32x32 images"
        for _classes in (10, 100):
            register_model(
                f"resnet{_depth}_{_rule}_cifar{_classes}",
                input_shape=(32, 32, 3),
                num_classes=_classes,
                source=SOURCES[_rule],
                aliases=(f"resnetv2_{_depth}_{_rule}_cifar{_classes}",),
                adapts=(f"resnetv2_{_depth}_cifar{_classes}", _rule),
            )(builder(_rule, _make(_depth), _title))
