"""Pre-activation residual networks for ImageNet in the form of figurnov2017.

BN and ReLU precede each convolution, and no activation follows the sum (he2016). In the form of
figurnov2017, the 3x3 convolution of a stage's first unit is strided, projections read the
pre-activation, the stem has neither BN nor ReLU, and class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting import mask_residual
from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.layers.pooling import global_avg_pool, max_pool
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import STAGES
from adaptive_nets.models.stages import RunStage, per_stage, run_sequentially

DEPTHS = (50, 101, 152)


class PreActivationBottleneck(nn.Module):
    """Bottleneck: three times BN - ReLU - conv (1x1, 3x3, 1x1), plus the shortcut.

    Attributes:
        width: width of the first two convolutions; the unit has four times as many outputs.
        strides: strides of the 3x3 convolution.
        momentum: momentum of the running statistics.
        dtype: dtype of the computation.
    """

    width: int
    strides: tuple[int, int] = (1, 1)
    momentum: float = 0.997
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False, mask: Array | None = None
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the unit's output; `mask` selects the active positions, see `mask_residual`."""

        def activate(x, name):
            norm = batch_norm(train, name=name, momentum=self.momentum, dtype=self.dtype)
            return nn.relu(norm(x))

        features = 4 * self.width
        activated = activate(x, "norm1")
        if self.strides != (1, 1) or x.shape[-1] != features:
            x = conv(
                features, (1, 1), strides=self.strides, dtype=self.dtype, name="downsample_conv"
            )(activated)
        y = conv(self.width, (1, 1), dtype=self.dtype, name="conv1")(activated)
        y = activate(y, "norm2")
        y = conv(self.width, (3, 3), strides=self.strides, dtype=self.dtype, name="conv2")(y)
        y = activate(y, "norm3")
        y = conv(features, (1, 1), dtype=self.dtype, name="conv3")(y)
        return x + mask_residual(y, mask)


def unit_name(stage: int, i: int) -> str:
    """Returns the name of a unit; stage and unit are counted from 0."""
    return f"stages_{stage}_blocks_{i}"


class ResNetV2(nn.Module):
    """ResNet v2: conv7x7/2, max pool 3/2, four stages of units, BN - ReLU, mean, linear.

    Attributes:
        stage_sizes: number of units of each stage.
        num_classes: number of logits.
        widths: widths of the stages.
        momentum: momentum of the running statistics.
        dtype: dtype of the computation.
    """

    stage_sizes: tuple[int, ...]
    num_classes: int = 1001
    widths: tuple[int, ...] = (64, 128, 256, 512)
    momentum: float = 0.997
    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        return self.logits(x, train, run_sequentially)

    @nn.compact
    def logits(self, x: Array, train: bool, run_stage: RunStage) -> Array:
        """Computes logits; `run_stage` runs the units of a stage."""
        options: dict[str, Any] = {"momentum": self.momentum, "dtype": self.dtype}
        x = conv(self.widths[0], (7, 7), strides=(2, 2), dtype=self.dtype, name="stem_conv")(x)
        # TensorFlow's "SAME" puts the odd row and column of padding at the bottom and the right.
        x = max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            units = [
                PreActivationBottleneck(
                    width,
                    (2, 2) if i == 0 and stage > 0 else (1, 1),
                    name=unit_name(stage, i),
                    **options,
                )
                for i in range(size)
            ]
            x = run_stage(units, x, train)
        x = nn.relu(batch_norm(train, name="norm", **options)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head_fc")(global_avg_pool(x))


def _builder(depth: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        stage_sizes: Sequence[int] | None = None,
    ) -> nn.Module:
        sizes = per_stage("stage_sizes", stage_sizes, STAGES[depth])
        return ResNetV2(sizes, num_classes=num_classes, dtype=dtype)

    build.__doc__ = f"Pre-activation ResNet-{depth} with 1001 classes, class 0 the background."
    return build


for _depth in DEPTHS:
    register_model(
        f"resnetv2_{_depth}",
        input_shape=(224, 224, 3),
        num_classes=1001,
        source="he2016, figurnov2017",
        aliases=(f"resnet_v2_{_depth}", f"resnet{_depth}_v2", f"resnet{_depth}v2"),
    )(_builder(_depth))
