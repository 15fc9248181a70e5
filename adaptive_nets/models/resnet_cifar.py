"""Residual networks for 32x32 images: 20 to 1202 layers (he2015, section 4.2)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting import mask_residual
from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.layers.drop_path import linear_survival, stochastic_depth_branch
from adaptive_nets.layers.pooling import global_avg_pool
from adaptive_nets.layers.shortcut import ZeroChannels, average, pad_channels, subsample
from adaptive_nets.layers.squeeze_excitation import SqueezeExcitation
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.stages import RunStage, run_sequentially
from adaptive_nets.runtime.errors import UserError

Shortcut = Literal["A", "B", "average"]

# Number of identical units from which a stage is compiled once and run as a scan.
SCAN_FROM = 50
DEPTHS = (20, 32, 44, 56, 110, 1202)


class CifarUnit(nn.Module):
    """Residual unit: conv3x3 - BN - ReLU - conv3x3 - BN, plus the shortcut, ReLU.

    Attributes:
        features: number of channels.
        strides: strides of the first convolution.
        shortcut: shortcut of a unit that changes the shape: "A" takes every second pixel and pads
            the channels with zeros, "B" is a 1x1 convolution and BN, "average" pools and pads.
        zeros: position of the zero channels, see `pad_channels`.
        use_bias: whether the convolutions have biases.
        reduction: reduction of squeeze-and-excitation on the residual branch; 0 disables it.
        se_bias: whether the dense layers of squeeze-and-excitation have biases.
        stochastic: whether the residual branch may be skipped in training.
        survival: probability that it is not; only of stochastic units.
        dtype: dtype of the computation.
    """

    features: int
    strides: tuple[int, int] = (1, 1)
    shortcut: Shortcut = "A"
    zeros: ZeroChannels = "both"
    use_bias: bool = False
    reduction: int = 0
    se_bias: bool = True
    stochastic: bool = False
    survival: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        survival: float | Float[Array, ""] | None = None,
        mask: Array | None = None,
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the unit's output.

        Args:
            x: float[N, H, W, C].
            train: whether to normalise by the statistics of the batch.
            survival: survival probability in place of the attribute.
            mask: selects the active positions, see `mask_residual`; the input, which is an output
                of ReLU, is copied at others.
        """
        shortcut = self._shortcut(x, train)
        if self.stochastic:
            residual = stochastic_depth_branch(
                self,
                lambda unit, x: unit._residual(x, train),
                x,
                shortcut,
                survival=self.survival if survival is None else survival,
                train=train,
            )
        else:
            residual = self._residual(x, train)
        return nn.relu(shortcut + mask_residual(residual, mask))

    def _residual(self, x: Array, train: bool) -> Array:
        options = {"use_bias": self.use_bias, "dtype": self.dtype}
        x = conv(self.features, (3, 3), strides=self.strides, name="conv1", **options)(x)
        x = nn.relu(batch_norm(train, name="bn1", dtype=self.dtype)(x))
        x = conv(self.features, (3, 3), name="conv2", **options)(x)
        x = batch_norm(train, name="bn2", dtype=self.dtype)(x)
        if self.reduction:
            x = SqueezeExcitation(
                reduction=self.reduction, use_bias=self.se_bias, dtype=self.dtype, name="se"
            )(x)
        return x

    def _shortcut(self, x: Array, train: bool) -> Array:
        if self.strides == (1, 1) and x.shape[-1] == self.features:
            return x
        match self.shortcut:
            case "A":
                return pad_channels(subsample(x, self.strides), self.features, zeros=self.zeros)
            case "average":
                return pad_channels(average(x, self.strides), self.features, zeros=self.zeros)
            case "B":
                options = {"use_bias": self.use_bias, "dtype": self.dtype}
                x = conv(self.features, (1, 1), strides=self.strides, name="shortcut_0", **options)(
                    x
                )
                return batch_norm(train, name="shortcut_1", dtype=self.dtype)(x)
        raise UserError(f"shortcut is {self.shortcut!r}; expected 'A', 'B' or 'average'")


def unit_name(stage: int, i: int) -> str:
    """Returns the name of a unit; stage and unit are counted from 0."""
    return f"layer{stage + 1}_{i}"


class CifarResNet(nn.Module):
    """ResNet for 32x32 images: conv3x3, three stages of n units, mean, linear.

    Units are named ``layer1_0``, ``layer1_1`` ... In a stage run as a scan, all units but the first
    share the name ``layer1_rest``, and their variables are stacked along a leading axis.

    Attributes:
        stage_sizes: number of units of each stage.
        num_classes: number of logits.
        widths: channels of each stage; the stem has the first of them.
        shortcut: shortcut of units that change the shape, see `CifarUnit`.
        zeros: position of the zero channels, see `pad_channels`.
        use_bias: whether convolutions have biases.
        reduction: reduction of squeeze-and-excitation; 0 disables it.
        se_bias: whether the dense layers of squeeze-and-excitation have biases.
        last_survival: survival probability of the last unit under stochastic depth, decreasing
            linearly from 1 at the input; None disables stochastic depth.
        scan_units: whether identical units are compiled once and run as a scan; None does so in
            stages with at least `SCAN_FROM` of them.
        dtype: dtype of the computation.
    """

    stage_sizes: tuple[int, ...]
    num_classes: int = 10
    widths: tuple[int, ...] = (16, 32, 64)
    shortcut: Shortcut = "A"
    zeros: ZeroChannels = "both"
    use_bias: bool = False
    reduction: int = 0
    se_bias: bool = True
    last_survival: float | None = None
    scan_units: bool | None = None
    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        return self.logits(x, train, run_sequentially)

    @nn.compact
    def logits(self, x: Array, train: bool, run_stage: RunStage) -> Array:
        """Computes logits; `run_stage` runs the units of a stage that is not a scan."""
        dtype = self.dtype
        unit = functools.partial(
            CifarUnit,
            shortcut=self.shortcut,
            zeros=self.zeros,
            use_bias=self.use_bias,
            reduction=self.reduction,
            se_bias=self.se_bias,
            stochastic=self.last_survival is not None,
            dtype=dtype,
        )
        last = 1.0 if self.last_survival is None else self.last_survival
        survival = linear_survival(sum(self.stage_sizes), last)
        x = conv(self.widths[0], (3, 3), name="conv1", use_bias=self.use_bias, dtype=dtype)(x)
        x = nn.relu(batch_norm(train, name="bn1", dtype=dtype)(x))
        done = 0
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            probs, done = survival[done : done + size], done + size
            scan = self.scan_units if self.scan_units is not None else size >= SCAN_FROM
            units = [
                unit(
                    width,
                    (2, 2) if i == 0 and stage > 0 else (1, 1),
                    survival=prob,
                    name=unit_name(stage, i),
                )
                for i, prob in enumerate(probs[:1] if scan else probs)
            ]
            x = run_stage(units, x, train)
            if scan and size > 1:
                x = _repeat(unit(width, name=f"layer{stage + 1}_rest"), x, train, probs[1:])
        return nn.Dense(self.num_classes, dtype=dtype, name="linear")(global_avg_pool(x))


def _repeat(unit: nn.Module, x: Array, train: bool, survival: tuple[float, ...]) -> Array:
    """Applies copies of a unit, each with its own variables, as a scan."""

    def body(unit, x, prob):
        return unit(x, train, prob), None

    loop = nn.scan(
        body,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "drop_path": True},
        # The units share no variables, so the second trace for the check is unnecessary.
        check_constancy_invariants=False,
    )
    return loop(unit, x, jnp.asarray(survival, jnp.float32))[0]


def units_per_stage(depth: int) -> int:
    """Returns n of a network of 6 n + 2 layers.

    Raises:
        UserError: the depth is not 6 n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"depth is {depth}; expected 6 n + 2, such as 20 or 110")
    return (depth - 2) // 6


def _builder(depth: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        depth: int = depth,
        shortcut: Shortcut = "A",
        zeros: ZeroChannels = "both",
        scan_units: bool | None = None,
    ) -> nn.Module:
        return CifarResNet(
            (units_per_stage(depth),) * 3,
            num_classes=num_classes,
            shortcut=shortcut,
            zeros=zeros,
            scan_units=scan_units,
            dtype=dtype,
        )

    build.__doc__ = f"ResNet-{depth} for 32x32 images with parameter-free shortcuts (option A)."
    return build


for _depth in DEPTHS:
    for _classes in (10, 100):
        register_model(
            f"resnet{_depth}_cifar{_classes}",
            input_shape=(32, 32, 3),
            num_classes=_classes,
            source="he2015",
            aliases=(f"resnet{_depth}", f"resnet{_depth}_cifar") if _classes == 10 else (),
        )(_builder(_depth))
