"""Squeeze-and-excitation networks (hu2018) for ImageNet and for 32x32 images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import IMAGENET, STAGES, ResNet, UnitSettings
from adaptive_nets.models.resnet_cifar import CifarResNet, Shortcut, units_per_stage

CIFAR_DEPTHS = (20, 56, 110)


def _seresnet(depth: int) -> Callable[..., nn.Module]:
    def build(
        *, num_classes: int, dtype: Any = jnp.float32, reduction: int = 16, se_bias: bool = True
    ) -> nn.Module:
        settings = UnitSettings(
            bottleneck=depth >= 50, reduction=reduction, se_bias=se_bias, se_multiple=8
        )
        return ResNet(STAGES[depth], num_classes=num_classes, unit=settings, dtype=dtype)

    build.__doc__ = f"SE-ResNet-{depth} in timm's form, stride in the 3x3, hidden widths of 8 n."
    return build


def _legacy(
    depth: int, *, description: str, dropout_rate: float = 0.0, deep_stem: bool = False, **unit: Any
) -> Callable[..., nn.Module]:
    """Returns a builder of networks in the form of the authors' Caffe files."""

    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        reduction: int = 16,
        se_bias: bool = True,
        dropout_rate: float = dropout_rate,
    ) -> nn.Module:
        settings = UnitSettings(
            bottleneck=depth >= 50,
            reduction=reduction,
            se_bias=se_bias,
            se_name="se_module",
            # In timm's published networks, basic units have this ReLU and bottlenecks do not.
            relu_before_se=depth < 50,
            **unit,
        )
        return ResNet(
            STAGES[depth],
            num_classes=num_classes,
            unit=settings,
            deep_stem=deep_stem,
            pool_ceil=True,
            dropout_rate=dropout_rate,
            stem_prefix="layer0_",
            head_name="last_linear",
            dtype=dtype,
        )

    build.__doc__ = description
    return build


def _cifar(depth: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        reduction: int = 16,
        se_bias: bool = True,
        shortcut: Shortcut = "A",
        scan_units: bool | None = None,
    ) -> nn.Module:
        return CifarResNet(
            (units_per_stage(depth),) * 3,
            num_classes=num_classes,
            shortcut=shortcut,
            reduction=reduction,
            se_bias=se_bias,
            scan_units=scan_units,
            dtype=dtype,
        )

    build.__doc__ = f"ResNet-{depth} for 32x32 images with squeeze-and-excitation in every unit."
    return build


for _depth in STAGES:
    register_model(
        f"seresnet{_depth}", **IMAGENET, source="hu2018, timm", aliases=(f"se_resnet{_depth}_timm",)
    )(_seresnet(_depth))
    register_model(
        f"legacy_seresnet{_depth}",
        **IMAGENET,
        source="hu2018",
        aliases=(f"se_resnet{_depth}", f"seresnet{_depth}_caffe"),
    )(
        _legacy(
            _depth,
            description=f"SE-ResNet-{_depth} in the authors' Caffe form, stride in the first 1x1."
            if _depth >= 50
            else f"SE-ResNet-{_depth} in the form of timm's legacy networks.",
            stride_position="1x1",
        )
    )

for _depth in (50, 101):
    register_model(
        f"legacy_seresnext{_depth}_32x4d",
        **IMAGENET,
        source="hu2018, xie2017",
        aliases=(f"seresnext{_depth}_32x4d", f"se_resnext{_depth}_32x4d"),
    )(
        _legacy(
            _depth,
            description=f"SE-ResNeXt-{_depth} with 32 groups of 4 channels.",
            inner_ratios=(2, 2),
            groups=32,
        )
    )

register_model(
    "senet154", **IMAGENET, source="hu2018", aliases=("legacy_senet154", "se_net154", "senet_154")
)(
    _legacy(
        152,
        description="SENet-154 with 64 groups, a stem of three 3x3 convolutions, 3x3 projections.",
        dropout_rate=0.2,
        deep_stem=True,
        inner_ratios=(2, 4),
        groups=64,
        projection_kernel=3,
    )
)

for _depth in CIFAR_DEPTHS:
    for _classes in (10, 100):
        register_model(
            f"se_resnet{_depth}_cifar{_classes}",
            input_shape=(32, 32, 3),
            num_classes=_classes,
            source="hu2018, he2015",
            aliases=(f"seresnet{_depth}_cifar{_classes}",),
        )(_cifar(_depth))
