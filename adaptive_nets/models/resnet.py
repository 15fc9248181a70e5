"""Residual networks for ImageNet with 18 to 152 layers (he2015)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting import mask_residual
from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.layers.drop_path import linear_survival, stochastic_depth_branch
from adaptive_nets.layers.pooling import global_avg_pool, max_pool
from adaptive_nets.layers.shortcut import pad_channels, subsample
from adaptive_nets.layers.squeeze_excitation import SqueezeExcitation
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet_cifar import unit_name
from adaptive_nets.models.stages import RunStage, run_sequentially
from adaptive_nets.runtime.errors import UserError

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)} | {
    152: (3, 8, 36, 3)
}
IMAGENET: dict[str, Any] = {"input_shape": (224, 224, 3), "num_classes": 1000}

StridePosition = Literal["1x1", "3x3"]
Shortcut = Literal["A", "B", "C", "none"]


@dataclasses.dataclass(frozen=True)
class UnitSettings:
    """Settings shared by all residual units of a network.

    Attributes:
        bottleneck: whether units are 1x1 - 3x3 - 1x1 with 4x wider outputs instead of 3x3 - 3x3.
        stride_position: strided convolution of a bottleneck: "1x1", the first one (paper), or
            "3x3".
        shortcut: shortcut of units that change the shape: "A" subsamples and pads with zero
            channels, "B" projects. "C" projects in every unit; "none" removes all shortcuts.
        inner_ratios: widths of a bottleneck's first two convolutions over the stage's width.
        groups: channel groups of a bottleneck's 3x3 convolution.
        projection_kernel: kernel size of strided projections, 1 or 3.
        reduction: reduction of squeeze-and-excitation on the residual branch; 0 disables it.
        se_bias: whether the dense layers of squeeze-and-excitation have biases.
        se_multiple: divisor of the hidden width of squeeze-and-excitation, which is rounded to the
            nearest multiple.
        se_name: name of the squeeze-and-excitation module.
        relu_before_se: whether ReLU precedes squeeze-and-excitation.
        stochastic: whether residual branches may be skipped in training.
    """

    bottleneck: bool = True
    stride_position: StridePosition = "3x3"
    shortcut: Shortcut = "B"
    inner_ratios: tuple[int, int] = (1, 1)
    groups: int = 1
    projection_kernel: int = 1
    reduction: int = 0
    se_bias: bool = True
    se_multiple: int = 1
    se_name: str = "se"
    relu_before_se: bool = False
    stochastic: bool = False

    def __post_init__(self):
        for name, known in (
            ("stride_position", ("1x1", "3x3")),
            ("shortcut", ("A", "B", "C", "none")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; expected one of {known}")


class ResidualUnit(nn.Module):
    """Residual unit: convolutions with BN and ReLU between them, plus the shortcut, ReLU.

    Attributes:
        width: width of the stage; a bottleneck has four times as many output channels.
        strides: strides of the unit.
        settings: settings of the network's units.
        survival: probability that the residual branch of a stochastic unit is not skipped.
        dtype: dtype of the computation.
    """

    width: int
    strides: tuple[int, int] = (1, 1)
    settings: UnitSettings = UnitSettings()
    survival: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False, mask: Array | None = None
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the unit's output.

        Args:
            x: float[N, H, W, C].
            train: whether to normalise by the statistics of the batch.
            mask: selects the active positions, see `mask_residual`; the input, which is an output
                of ReLU, is copied at others.
        """
        if self.settings.shortcut == "none":
            return nn.relu(self._residual(x, train))
        shortcut = self._shortcut(x, train)
        if self.settings.stochastic:
            residual = stochastic_depth_branch(
                self,
                lambda unit, x: unit._residual(x, train),
                x,
                shortcut,
                survival=self.survival,
                train=train,
            )
        else:
            residual = self._residual(x, train)
        return nn.relu(shortcut + mask_residual(residual, mask))

    @property
    def features(self) -> int:
        """Number of output channels."""
        return self.width * (4 if self.settings.bottleneck else 1)

    def _residual(self, x: Array, train: bool) -> Array:
        settings, strides = self.settings, self.strides
        if settings.bottleneck:
            first, second = (ratio * self.width for ratio in settings.inner_ratios)
            in_first = settings.stride_position == "1x1"
            layers = (
                (first, 1, strides if in_first else (1, 1), 1),
                (second, 3, (1, 1) if in_first else strides, settings.groups),
                (self.features, 1, (1, 1), 1),
            )
        else:
            layers = ((self.features, 3, strides, 1), (self.features, 3, (1, 1), 1))
        for i, (features, size, stride, groups) in enumerate(layers, start=1):
            x = conv(
                features,
                (size, size),
                strides=stride,
                groups=groups,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            x = batch_norm(train, name=f"bn{i}", dtype=self.dtype)(x)
            if i < len(layers) or settings.relu_before_se:
                x = nn.relu(x)
        if settings.reduction:
            x = SqueezeExcitation(
                hidden=_rounded(self.features / settings.reduction, settings.se_multiple),
                use_bias=settings.se_bias,
                dtype=self.dtype,
                name=settings.se_name,
            )(x)
        return x

    def _shortcut(self, x: Array, train: bool) -> Array:
        settings = self.settings
        same = self.strides == (1, 1) and x.shape[-1] == self.features
        if same and settings.shortcut != "C":
            return x
        if settings.shortcut == "A":
            return pad_channels(subsample(x, self.strides), self.features, zeros="after")
        size = settings.projection_kernel if self.strides != (1, 1) else 1
        x = conv(
            self.features, (size, size), strides=self.strides, dtype=self.dtype, name="downsample_0"
        )(x)
        return batch_norm(train, name="downsample_1", dtype=self.dtype)(x)


class ResNet(nn.Module):
    """ResNet: conv7x7/2, max pool 3/2, four stages of residual units, mean, linear.

    Attributes:
        stage_sizes: number of units of each stage.
        num_classes: number of logits.
        unit: settings of all units.
        widths: widths of the stages; the stem has the first one unless ``deep_stem``.
        conv1_bias: whether the first convolution has a bias, as in the authors' ResNet-50 file.
        deep_stem: whether three 3x3 convolutions with 64, 64, 128 channels replace the 7x7.
        pool_ceil: whether pooling rounds sizes up instead of padding by one, as in Caffe.
        dropout_rate: dropout rate before the linear layer in training (stream ``dropout``).
        last_survival: survival probability of the last unit under stochastic depth, decreasing
            linearly from 1 at the input; None disables stochastic depth.
        stem_prefix: prefix of the names of the stem's layers.
        head_name: name of the linear layer.
        dtype: dtype of the computation.
    """

    stage_sizes: tuple[int, ...]
    num_classes: int = 1000
    unit: UnitSettings = UnitSettings()
    widths: tuple[int, ...] = (64, 128, 256, 512)
    conv1_bias: bool = False
    deep_stem: bool = False
    pool_ceil: bool = False
    dropout_rate: float = 0.0
    last_survival: float | None = None
    stem_prefix: str = ""
    head_name: str = "fc"
    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        return self.logits(x, train, run_sequentially)

    @nn.compact
    def logits(self, x: Array, train: bool, run_stage: RunStage) -> Array:
        """Computes logits; `run_stage` runs the units of a stage."""
        settings, last = self.unit, 1.0
        if self.last_survival is not None:
            settings, last = dataclasses.replace(settings, stochastic=True), self.last_survival
        survival = linear_survival(sum(self.stage_sizes), last)
        x = self._stem(x, train)
        done = 0
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            units = [
                ResidualUnit(
                    width,
                    (2, 2) if i == 0 and stage > 0 else (1, 1),
                    settings,
                    survival[done + i],
                    dtype=self.dtype,
                    name=unit_name(stage, i),
                )
                for i in range(size)
            ]
            x = run_stage(units, x, train)
            done += size
        x = global_avg_pool(x)
        if self.dropout_rate:
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name=self.head_name)(x)

    def _stem(self, x: Array, train: bool) -> Array:
        layers = ((self.widths[0], 7, (2, 2)),)
        if self.deep_stem:
            layers = ((64, 3, (2, 2)), (64, 3, (1, 1)), (128, 3, (1, 1)))
        for i, (features, size, strides) in enumerate(layers, start=1):
            x = conv(
                features,
                (size, size),
                strides=strides,
                use_bias=self.conv1_bias and i == 1,
                dtype=self.dtype,
                name=f"{self.stem_prefix}conv{i}",
            )(x)
            x = nn.relu(batch_norm(train, name=f"{self.stem_prefix}bn{i}", dtype=self.dtype)(x))
        if self.pool_ceil:
            return max_pool(x, (3, 3), (2, 2), ceil_mode=True)
        return max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def _rounded(size: float, multiple: int) -> int:
    """Rounds to the nearest multiple, halves up, at least one multiple."""
    return max(multiple, int(size + multiple / 2) // multiple * multiple)


def _basic(depth: int) -> Callable[..., nn.Module]:
    def build(*, num_classes: int, dtype: Any = jnp.float32, shortcut: Shortcut = "B") -> nn.Module:
        settings = UnitSettings(bottleneck=False, shortcut=shortcut)
        return ResNet(STAGES[depth], num_classes=num_classes, unit=settings, dtype=dtype)

    build.__doc__ = f"ResNet-{depth} with units of two 3x3 convolutions and projection shortcuts."
    return build


def _plain(depth: int) -> Callable[..., nn.Module]:
    def build(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
        settings = UnitSettings(bottleneck=False, shortcut="none")
        return ResNet(STAGES[depth], num_classes=num_classes, unit=settings, dtype=dtype)

    build.__doc__ = f"Plain-{depth}: ResNet-{depth} without shortcuts."
    return build


def _bottleneck(depth: int, *, caffe: bool) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        stride_position: StridePosition = "1x1" if caffe else "3x3",
        shortcut: Shortcut = "B",
        conv1_bias: bool = caffe and depth == 50,
    ) -> nn.Module:
        settings = UnitSettings(stride_position=stride_position, shortcut=shortcut)
        return ResNet(
            STAGES[depth],
            num_classes=num_classes,
            unit=settings,
            conv1_bias=conv1_bias,
            pool_ceil=caffe,
            dtype=dtype,
        )

    form = (
        "stride in the first 1x1 convolution (authors' Caffe form)"
        if caffe
        else "stride in the 3x3 convolution (torchvision)"
    )
    build.__doc__ = f"ResNet-{depth}, {form}."
    return build


for _depth in STAGES:
    if _depth < 50:
        register_model(f"resnet{_depth}", **IMAGENET, source="he2015")(_basic(_depth))
        register_model(f"plain{_depth}", **IMAGENET, source="he2015")(_plain(_depth))
        continue
    register_model(
        f"resnet{_depth}",
        **IMAGENET,
        source="he2015, torchvision",
        aliases=(f"resnet{_depth}_v1_5",),
    )(_bottleneck(_depth, caffe=False))
    register_model(
        f"resnet{_depth}_caffe",
        **IMAGENET,
        source="he2015",
        aliases=(f"resnet{_depth}_v1", f"resnet{_depth}_v1_original"),
    )(_bottleneck(_depth, caffe=True))
