"""Post-activation residual networks of adaptive depth for 32x32 images.

ACT, SACT [figurnov2017] and their probabilistic counterpart [figurnov2018] over the networks of
`resnet_cifar`, whose trained weights they take unchanged. The papers use pre-activation networks
on these images.
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
from adaptive_nets.models.adaptive.units import MapSize, PostActivationBasicUnits
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet_cifar import CifarResNet, units_per_stage
from adaptive_nets.models.stages import per_stage

# Deeper networks run their stages as scans, whose units have no scopes of their own.
DEPTHS = tuple(depth for depth in resnet_cifar.DEPTHS if depth < 1202)


class AdaptivePostActivationCifarResNet(AdaptiveResidualNetwork, CifarResNet):
    """`CifarResNet` whose stages halt; attributes of both, without scans of units."""

    unit_name = staticmethod(resnet_cifar.unit_name)

    @property
    def units(self) -> PostActivationBasicUnits:
        """See `AdaptiveResidualNetwork`."""
        return PostActivationBasicUnits(
            norms=("bn1", "bn2"),
            convs=("conv1", "conv2"),
            epsilon=1e-5,
            projection=self.shortcut == "B",
        )

    @nn.nowrap
    def stem_flops(self, map_size: MapSize, image_size: MapSize | None) -> int:
        """See `AdaptiveResidualNetwork`."""
        del image_size
        return int(conv_flops(math.prod(map_size), (3, 3), 3, self.widths[0]))


def _make(depth: int) -> Callable[..., nn.Module]:
    def make(*, stage_sizes, widths, **options) -> AdaptivePostActivationCifarResNet:
        return AdaptivePostActivationCifarResNet(
            stage_sizes=per_stage("stage_sizes", stage_sizes, (units_per_stage(depth),) * 3),
            widths=per_stage("widths", widths, AdaptivePostActivationCifarResNet.widths),
            scan_units=False,
            **options,
        )

    return make


for _rule in get_args(Rule):
    for _depth in DEPTHS:
        for _classes in (10, 100):
            register_model(
                f"resnetv1_{_depth}_{_rule}_cifar{_classes}",
                input_shape=(32, 32, 3),
                num_classes=_classes,
                source=f"he2015, {SOURCES[_rule]}",
                aliases=(f"resnet{_depth}_cifar{_classes}_{_rule}",),
                adapts=(f"resnet{_depth}_cifar{_classes}", _rule),
            )(
                builder(
                    _rule,
                    _make(_depth),
                    f"ResNet-{_depth} for 32x32 images",
                    shortcut="A",
                    zeros="both",
                )
            )
