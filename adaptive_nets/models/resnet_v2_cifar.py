"""Pre-activation residual networks for 32x32 images in the form of figurnov2017."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting import mask_residual
from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.layers.pooling import global_avg_pool
from adaptive_nets.layers.shortcut import average, pad_channels
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet_cifar import unit_name, units_per_stage
from adaptive_nets.models.stages import RunStage, per_stage, run_sequentially

DEPTHS = (32, 110)
SLOPE = 0.1
EPSILON = 1e-3


def activate(x: Array, train: bool, *, name: str, dtype: Any) -> Array:
    """Applies BN and leaky ReLU."""
    x = batch_norm(train, name=name, epsilon=EPSILON, dtype=dtype)(x)
    return nn.leaky_relu(x, SLOPE)


class PreActivationUnit(nn.Module):
    """Residual unit: twice BN - leaky ReLU - conv3x3, plus the shortcut.

    A shortcut that changes the shape is average pooling with zero channels on both sides.

    Attributes:
        features: number of output channels.
        strides: strides of the first convolution.
        activate_shortcut: whether the shortcut also reads the activated input, as in the network's
            first unit, whose input is the output of a convolution.
        dtype: dtype of the computation.
    """

    features: int
    strides: tuple[int, int] = (1, 1)
    activate_shortcut: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False, mask: Array | None = None
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the unit's output; `mask` selects the active positions, see `mask_residual`."""
        dtype = self.dtype
        y = activate(x, train, name="bn1", dtype=dtype)
        shortcut = pad_channels(
            average(y if self.activate_shortcut else x, self.strides), self.features
        )
        y = conv(self.features, (3, 3), strides=self.strides, dtype=dtype, name="conv1")(y)
        y = activate(y, train, name="bn2", dtype=dtype)
        y = conv(self.features, (3, 3), dtype=dtype, name="conv2")(y)
        return shortcut + mask_residual(y, mask)


class CifarResNetV2(nn.Module):
    """ResNet v2 for 32x32 images: conv3x3, three stages, mean, BN - leaky ReLU, linear.

    Attributes:
        stage_sizes: number of units of each stage.
        num_classes: number of logits.
        widths: widths of the stages.
        dtype: dtype of the computation.
    """

    stage_sizes: tuple[int, ...]
    num_classes: int = 10
    widths: tuple[int, ...] = (16, 32, 64)
    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        return self.logits(x, train, run_sequentially)

    @nn.compact
    def logits(self, x: Array, train: bool, run_stage: RunStage) -> Array:
        """Computes logits; `run_stage` runs the units of a stage."""
        x = conv(self.widths[0], (3, 3), dtype=self.dtype, name="conv1")(x)
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            units = [
                PreActivationUnit(
                    width,
                    strides=(2, 2) if i == 0 and stage > 0 else (1, 1),
                    activate_shortcut=i == 0 and stage == 0,
                    dtype=self.dtype,
                    name=unit_name(stage, i),
                )
                for i in range(size)
            ]
            x = run_stage(units, x, train)
        # Pooling precedes the normalisation, whose statistics are therefore over the batch only.
        x = activate(global_avg_pool(x), train, name="bn", dtype=self.dtype)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="linear")(x)


def _builder(depth: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        depth: int = depth,
        stage_sizes: Sequence[int] | None = None,
    ) -> nn.Module:
        sizes = per_stage("stage_sizes", stage_sizes, (units_per_stage(depth),) * 3)
        return CifarResNetV2(sizes, num_classes=num_classes, dtype=dtype)

    build.__doc__ = f"Pre-activation ResNet-{depth} for 32x32 images with leaky ReLU."
    return build


for _depth in DEPTHS:
    for _classes in (10, 100):
        register_model(
            f"resnetv2_{_depth}_cifar{_classes}",
            input_shape=(32, 32, 3),
            num_classes=_classes,
            source="figurnov2017, he2016",
            aliases=(f"resnet{_depth}v2_cifar{_classes}", f"preresnet{_depth}_cifar{_classes}"),
        )(_builder(_depth))
