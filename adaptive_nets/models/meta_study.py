"""Networks of the Meta study: 3-D convolutions, Meta layers and Meta heads on CIFAR-10.

Each of the three tests has one body and one head. A variant replaces some convolutions of the body,
or the head [kondaurova]. The article's text and the authors' notebooks differ: the *code form*
follows the notebooks, whose parameter totals are the published ones, and the *text form* follows
the article. Blocks are convolution, PReLU, batch normalisation, in that order. Convolutions and
dense layers start uniform within ±1/√fan_in. Inputs are expected in [-1, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import adaptive_avg_pool, batch_norm, fan_in_uniform
from adaptive_nets.layers.conv3d import Conv3d, Form, depth_to_channels
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.meta import Meta, MetaInit
from adaptive_nets.layers.pooling import max_over, tiled_max_pool
from adaptive_nets.layers.prelu import PReLU
from adaptive_nets.models.meta_heads import HeadKind, StudyHead
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

UnitKind = Literal["conv2d", "conv3d", "meta"]


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Layer that replaces the varied convolutions of a body.

    Attributes:
        kind: "conv2d": ordinary convolution. "conv3d": 3-D convolution over channels viewed as
            volumes. "meta": small convolutions of separate groups, mixed by a Meta layer.
        groups: number of channel groups of every replaced convolution; the published number of each
            if None.
        form: form of "conv3d": "code" as published, or "text".
        filters: number of 3-D filters of every replaced convolution in the text form.
        meta_init: initialisation of "meta", see `adaptive_nets.layers.meta.Meta`.
        scrambled: whether the first "meta" of test 2 pools over groups and mistakes the remaining
            groups for columns, as published. False pools over the channels within groups, as the
            second "meta" does.
    """

    kind: UnitKind = "conv2d"
    groups: int | None = None
    form: Form = "code"
    filters: int | None = None
    meta_init: MetaInit = "normal"
    scrambled: bool = True


class ConvBlock(nn.Module):
    """Block of a 3x3 convolution with bias, PReLU and batch normalisation.

    Attributes:
        features: number of output channels O.
        groups: number of separate convolutions, each with its own PReLU slope.
        dtype: dtype of the computation.
    """

    features: int
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N H W O"]:
        """Computes the block's output."""
        x = Conv(
            self.features,
            (3, 3),
            padding=((1, 1), (1, 1)),
            feature_group_count=self.groups,
            dtype=self.dtype,
            kernel_init=fan_in_uniform.kernel_init(),
            bias_init=fan_in_uniform.bias_init(9 * x.shape[-1] // self.groups),
            name="conv",
        )(x)
        x = PReLU(self.groups, name="prelu")(x)
        return batch_norm(train, name="bn", dtype=self.dtype)(x)


class Unit(nn.Module):
    """Varied convolution of a body, float[N, H, W, C] -> float[N, H, W, maps].

    Attributes:
        replacement: layer in place of the convolution.
        maps: number of output maps.
        groups: published numbers of groups of "conv3d" and of "meta".
        pool_first: whether "meta" applies 2x2 pooling before the mixing.
        dtype: dtype of the computation.
    """

    replacement: Replacement
    maps: int
    groups: tuple[int, int]
    pool_first: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Computes the unit's output."""
        kind = self.replacement.kind
        if kind == "conv2d":
            return ConvBlock(self.maps, dtype=self.dtype, name="plain")(x, train)
        published = self.groups[0] if kind == "conv3d" else self.groups[1]
        groups = published if self.replacement.groups is None else self.replacement.groups
        channels = x.shape[-1]
        if groups < 1 or channels % groups:
            raise UserError(
                f"groups is {groups}; expected a divisor of {channels}, the number of channels"
            )
        outputs = groups * self.maps // channels
        if kind == "conv3d":
            x = Conv3d(
                self.replacement.filters or outputs,
                groups=groups,
                form=self.replacement.form,
                maps=self.maps,
                dtype=self.dtype,
                name="conv3d",
            )(x)
            x = batch_norm(train, name="bn", dtype=self.dtype)(PReLU(name="prelu")(x))
            return depth_to_channels(x)
        x = ConvBlock(channels, groups=groups, dtype=self.dtype, name="groups")(x, train)
        if self.pool_first:
            x = tiled_max_pool(x, (2, 2))
        x = Meta(groups, outputs, self.replacement.meta_init, dtype=self.dtype, name="meta")(x)
        return PReLU(name="prelu")(x)


class BodyTest1(nn.Module):
    """Body of test 1: two fixed and one varied layer, float[N, 32, 32, 3] -> [N, 8, 8, 32]."""

    replacement: Replacement
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Computes the maps that the head reads."""
        kind = self.replacement.kind
        x = ConvBlock(6, dtype=self.dtype, name="stem_1")(x, train)
        x = tiled_max_pool(ConvBlock(16, dtype=self.dtype, name="stem_2")(x, train), (2, 2))
        x = _drop_maps(x, train)
        x = Unit(self.replacement, 32, (1, 4), pool_first=True, dtype=self.dtype, name="unit")(
            x, train
        )
        if kind == "meta":
            return x
        x = tiled_max_pool(x, (2, 2))
        return _drop_maps(x, train) if kind == "conv2d" else x


class BodyTest2(nn.Module):
    """Body of test 2: four fixed and two varied layers, float[N, 32, 32, 3] -> [N, 8, 8, 128]."""

    replacement: Replacement
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Computes the maps that the head reads."""
        kind = self.replacement.kind
        # Replacements of a convolution have twice the maps, which are pooled in pairs.
        doubled = 1 if kind == "conv2d" else 2
        x = ConvBlock(16, dtype=self.dtype, name="stem_1")(x, train)
        x = tiled_max_pool(ConvBlock(32, dtype=self.dtype, name="stem_2")(x, train), (2, 2))
        x = ConvBlock(64, dtype=self.dtype, name="stem_3")(_drop_maps(x, train), train)

        x = Unit(self.replacement, 64 * doubled, (4, 8), dtype=self.dtype, name="h1")(x, train)
        if kind == "conv2d":
            x = _drop_maps(tiled_max_pool(x, (2, 2)), train)
        elif kind == "meta" and self.replacement.scrambled:
            x = pool_over_groups(x, channels_per_group=64 // (self.replacement.groups or 8))
        else:
            x = max_over(_pairs(tiled_max_pool(x, (2, 2))), (4,))
        x = ConvBlock(128, dtype=self.dtype, name="h2")(x, train)
        x = Unit(self.replacement, 128 * doubled, (8, 16), dtype=self.dtype, name="h3")(x, train)
        return _drop_maps(x, train) if kind == "conv2d" else jnp.mean(_pairs(x), axis=-1)


class BodyTest3(nn.Module):
    """Body of test 3: residual, 16 + 16 blocks, float[N, 32, 32, 3] -> float[N, 8, 8, 64].

    A block is x + unit(x) without an activation after the sum. The unit's first half is varied.
    """

    replacement: Replacement
    dtype: Any = jnp.float32
    blocks: int = 16

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Computes the maps that the head reads."""
        x = ConvBlock(16, dtype=self.dtype, name="stem_1")(x, train)
        x = tiled_max_pool(ConvBlock(32, dtype=self.dtype, name="stem_2")(x, train), (2, 2))
        x = _drop_maps(x, train)
        for stage, maps in enumerate((32, 64), start=1):
            if stage == 2:
                x = ConvBlock(maps, dtype=self.dtype, name="reshape")(x, train)
                x = tiled_max_pool(x, (2, 2))
            for block in range(self.blocks):
                name = f"stage_{stage}_{block}"
                y = Unit(self.replacement, maps, (4, 8), dtype=self.dtype, name=f"{name}_1")(
                    x, train
                )
                y = ConvBlock(maps, dtype=self.dtype, name=f"{name}_2")(y, train)
                x += _drop_maps(y, train)
        return x


class MetaStudyNet(nn.Module):
    """Network of the Meta study: a body and a head.

    Attributes:
        test: number of the test, 1, 2 or 3.
        replacement: layer in place of the body's varied convolutions.
        head: kind of the head, see `adaptive_nets.models.meta_heads.StudyHead`.
        head_groups: number of groups of the Meta head; the published number if None.
        head_form: form of the Meta head, "code" or "text".
        head_meta_init: initialisation of the Meta head's matrix.
        num_classes: number of logits.
        dtype: dtype of the computation.
    """

    test: int
    replacement: Replacement = Replacement()
    head: HeadKind = "fc"
    head_groups: int | None = None
    head_form: Form = "code"
    head_meta_init: MetaInit = "normal"
    num_classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        body = {1: BodyTest1, 2: BodyTest2, 3: BodyTest3}[self.test]
        x = body(self.replacement, dtype=self.dtype, name="body")(x, train)
        # The "gap" head pools over all positions itself.
        if self.test != 1 and self.head != "gap":
            side = 3 if self.test == 2 else 4
            x = adaptive_avg_pool(x, (side, side))
        return StudyHead(
            kind=self.head,
            hidden=40 if self.test == 1 else 64,
            published=(4, 10, 4) if self.test == 1 else (16, 8, 8),
            groups=self.head_groups,
            form=self.head_form,
            meta_init=self.head_meta_init,
            num_classes=self.num_classes,
            dtype=self.dtype,
            name="head",
        )(x, train)


def pool_over_groups(
    x: Float[Array, "N H W G*C"], *, channels_per_group: int
) -> Float[Array, "N W G H*C"]:
    """Reproduces the axis error of test 2: 2x2x2 max pooling over rows, columns and groups.

    The published code then misreads the axes: the pooled value at (channel in group c, row h,
    column w, group g) becomes map c·H/2 + h, row w, column g, so groups turn into columns.

    Args:
        x: float[N, H, W, G·C'], group-major.
        channels_per_group: number C' of channels in a group.

    Returns:
        float[N, W/2, G/2, C'·H/2].
    """
    x = tiled_max_pool(x, (2, 2))
    n, height, width, channels = x.shape
    groups = channels // channels_per_group
    if groups // 2 != width:
        raise UserError(
            f"groups is {groups // 2}, and scrambled=True gives maps of {width}x{groups // 2}; "
            f"expected {width} groups, or scrambled=False"
        )
    x = max_over(x.reshape(n, height, width, groups // 2, 2, channels_per_group), (4,))
    return jnp.transpose(x, (0, 2, 3, 4, 1)).reshape(n, width, groups // 2, -1)


def _pairs(x: Float[Array, "N H W C"]) -> Float[Array, "N H W C/2 2"]:
    """Splits channels into neighbouring pairs, the third axis of 3-D pooling."""
    return x.reshape(*x.shape[:-1], -1, 2)


def _drop_maps(x: Float[Array, "N H W C"], train: bool) -> Float[Array, "N H W C"]:
    """Drops whole maps with probability 0.1 in training (stream ``dropout``)."""
    return nn.Dropout(0.1, broadcast_dims=(1, 2))(x, deterministic=not train)


_CIFAR10 = {"input_shape": (32, 32, 3), "num_classes": 10, "source": "kondaurova"}


def _conv2d_builder(test: int) -> Callable[..., nn.Module]:
    def build(*, num_classes: int, dtype: Any = jnp.float32, head: HeadKind = "fc") -> nn.Module:
        return MetaStudyNet(test, head=head, num_classes=num_classes, dtype=dtype)

    build.__doc__ = f"Test {test} of the Meta study with ordinary convolutions."
    return build


def _conv3d_builder(test: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        groups: int | None = None,
        form: Form = "code",
        filters: int | None = None,
        head: HeadKind = "fc",
    ) -> nn.Module:
        if filters is not None and form != "text":
            raise UserError(f"filters is {filters} with form {form!r}; expected form='text'")
        replacement = Replacement("conv3d", groups=groups, form=form, filters=filters)
        return MetaStudyNet(test, replacement, head=head, num_classes=num_classes, dtype=dtype)

    build.__doc__ = f"Test {test} of the Meta study with 3-D convolutions over channels."
    return build


def _meta_builder(test: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        groups: int | None = None,
        meta_init: MetaInit = "normal",
        scrambled: bool = True,
        head: HeadKind = "fc",
    ) -> nn.Module:
        replacement = Replacement("meta", groups=groups, meta_init=meta_init, scrambled=scrambled)
        return MetaStudyNet(test, replacement, head=head, num_classes=num_classes, dtype=dtype)

    build.__doc__ = f"Test {test} of the Meta study with Meta layers in place of convolutions."
    return build


def _head_builder(test: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        groups: int | None = None,
        form: Form = "code",
        meta_init: MetaInit = "normal",
        head: HeadKind = "meta",
    ) -> nn.Module:
        return MetaStudyNet(
            test,
            head=head,
            head_groups=groups,
            head_form=form,
            head_meta_init=meta_init,
            num_classes=num_classes,
            dtype=dtype,
        )

    build.__doc__ = f"Test {test} of the Meta study with the Meta head."
    return build


for _test in (1, 2, 3):
    register_model(f"meta_study_conv2d_{_test}", **_CIFAR10)(_conv2d_builder(_test))
    register_model(f"meta_study_conv3d_{_test}", **_CIFAR10)(_conv3d_builder(_test))
    register_model(f"meta_study_meta_{_test}", **_CIFAR10)(_meta_builder(_test))
    register_model(f"meta_study_head_{_test}", **_CIFAR10)(_head_builder(_test))
