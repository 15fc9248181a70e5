"""BN-Inception (Inception v2), plain and with squeeze-and-excitation.

Parameter paths joined by underscores are the names of the Caffe-derived PyTorch definition:
``inception_3a/3x3_reduce/kernel`` is ``inception_3a_3x3_reduce.weight``. The batch normalisation
behind that convolution is ``inception_3a/3x3_reduce_bn``.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers.conv_norm import batch_norm
from adaptive_nets.layers.conv_norm import conv as make_conv
from adaptive_nets.layers.pooling import global_avg_pool
from adaptive_nets.layers.squeeze_excitation import SqueezeExcitation
from adaptive_nets.models.inception_blocks import (
    EPSILON,
    Apply,
    Branch,
    Convolution,
    Pooling,
    conv,
    join_branches,
)
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

Widths = Literal["caffe", "tf_slim"]

_AVERAGE = Pooling("avg")
_MAXIMUM = Pooling("max")
_HALVE = Pooling("max", stride=2, padding=0, ceil_mode=True)

# 3x224x224 -> 192x28x28.
_STEM: Branch = (
    conv("conv1_7x7_s2", 64, 7, stride=2),
    _HALVE,
    conv("conv2_3x3_reduce", 64),
    conv("conv2_3x3", 192, 3),
    _HALVE,
)


def _module(
    first: int,
    single: tuple[int, int],
    double: tuple[int, int],
    projection: int,
    pool: Pooling = _AVERAGE,
) -> tuple[Branch, ...]:
    """Returns the branches 1x1 | reduce, 3x3 | reduce, 3x3, 3x3 | pool, 1x1."""
    return (
        (conv("1x1", first),),
        (conv("3x3_reduce", single[0]), conv("3x3", single[1], 3)),
        (
            conv("double_3x3_reduce", double[0]),
            conv("double_3x3_1", double[1], 3),
            conv("double_3x3_2", double[1], 3),
        ),
        (pool, conv("pool_proj", projection)),
    )


def _reduction(single: tuple[int, int], double: tuple[int, int]) -> tuple[Branch, ...]:
    """Returns the branches reduce, 3x3 /2 | reduce, 3x3, 3x3 /2 | pool /2."""
    return (
        (conv("3x3_reduce", single[0]), conv("3x3", single[1], 3, stride=2)),
        (
            conv("double_3x3_reduce", double[0]),
            conv("double_3x3_1", double[1], 3),
            conv("double_3x3_2", double[1], 3, stride=2),
        ),
        (_HALVE,),
    )


def _modules(widths: Widths) -> dict[str, tuple[Branch, ...]]:
    narrow = 128 if widths == "caffe" else 96
    return {
        "inception_3a": _module(64, (64, 64), (64, 96), 32),
        "inception_3b": _module(64, (64, 96), (64, 96), 64),
        "inception_3c": _reduction((128, 160), (64, 96)),
        "inception_4a": _module(224, (64, 96), (96, 128), 128),
        "inception_4b": _module(192, (96, 128), (96, 128), 128),
        "inception_4c": _module(160, (128, 160), (128, 160), narrow),
        "inception_4d": _module(96, (128, 192), (160, 192), narrow),
        "inception_4e": _reduction((128, 192), (192, 256)),
        "inception_5a": _module(352, (192, 320), (160, 224), 128),
        "inception_5b": _module(352, (192, 320), (192, 224), 128, _MAXIMUM),
    }


def _conv_bn_relu(use_bias: bool, epsilon: float, dtype: Any, train: bool) -> Apply:
    """Returns a function that applies convolution ``NAME``, normalisation ``NAME_bn`` and ReLU."""

    def apply(step: Convolution, x: Array) -> Array:
        x = make_conv(
            step.features,
            step.kernel_size,
            name=step.name,
            strides=(step.stride, step.stride),
            padding=step.padding,
            use_bias=use_bias,
            dtype=dtype,
        )(x)
        normalise = batch_norm(train, name=f"{step.name}_bn", epsilon=epsilon, dtype=dtype)
        return nn.relu(normalise(x))

    return apply


class BNInceptionModule(nn.Module):
    """Inception module with an optional squeeze-and-excitation gate on its output.

    Attributes:
        branches: steps of each branch.
        use_conv_bias: whether convolutions have biases although normalisation follows.
        epsilon: epsilon of the batch normalisations.
        gated: whether the output is gated by ``se/1x1_down`` and ``se/1x1_up``, reduction 16.
        gate_scale: whether a trainable factor per channel follows the gate.
        dtype: dtype of the computation.
    """

    branches: tuple[Branch, ...]
    use_conv_bias: bool
    epsilon: float
    gated: bool
    gate_scale: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Returns the concatenated branches, float[N, H', W', O]."""
        apply = _conv_bn_relu(self.use_conv_bias, self.epsilon, self.dtype, train)
        x = join_branches(self.branches, x, apply)
        if self.gated:
            names = ("1x1_down", "1x1_up")
            x = SqueezeExcitation(reduction=16, names=names, dtype=self.dtype, name="se")(x)
        if self.gate_scale:
            scale = self.param("gate_scale", initializers.ones, (x.shape[-1],), jnp.float32)
            x = x * scale.astype(x.dtype)[None, None, None, :]
        return x


class BNInception(nn.Module):
    """BN-Inception (ioffe2015) with the widths of the Caffe-derived definition or of TF-slim.

    Convolutions start from He's fan-out initialisation, the classifier from LeCun's.

    Attributes:
        num_classes: number of outputs K.
        widths: "caffe", or "tf_slim" with 96 outputs in the pool branches of 4c and 4d.
        use_conv_bias: whether convolutions have biases although normalisation follows.
        epsilon: epsilon of the batch normalisations; weights ported from Caffe need 1e-5.
        gated: whether every module's output passes a squeeze-and-excitation gate (hu2018).
        gate_scale: whether a trainable factor per channel follows every gate. True gives the
            reference count of 11,938,246 parameters, False 11,931,622. The published weights need
            False: their Scale layers behind the gates have two inputs and no parameters.
        dropout_rate: dropout rate before the classifier (stream ``dropout``); 0 in the paper.
        dtype: dtype of the computation.
    """

    num_classes: int = 1000
    widths: Widths = "caffe"
    use_conv_bias: bool = True
    epsilon: float = EPSILON
    gated: bool = False
    gate_scale: bool = False
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Computes logits.

        Raises:
            UserError: the image size is not a multiple of 32. Convolution and pooling would halve
                an odd map to different sizes.
        """
        apply = _conv_bn_relu(self.use_conv_bias, self.epsilon, self.dtype, train)
        height, width = x.shape[1:3]
        x = join_branches((_STEM,), x, apply)
        if x.shape[1] % 4 or x.shape[2] % 4:
            raise UserError(
                f"BN-Inception got images of {height}x{width}; expected multiples of 32, "
                "such as 224x224"
            )
        for name, branches in _modules(self.widths).items():
            x = BNInceptionModule(
                branches,
                use_conv_bias=self.use_conv_bias,
                epsilon=self.epsilon,
                gated=self.gated,
                gate_scale=self.gate_scale,
                dtype=self.dtype,
                name=name,
            )(x, train)
        x = nn.Dropout(self.dropout_rate)(global_avg_pool(x), deterministic=not train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="last_linear")(x)


def _checked(widths: str) -> Widths:
    if widths not in ("caffe", "tf_slim"):
        raise UserError(f"widths is {widths!r}; expected caffe or tf_slim")
    return widths


@register_model(
    "bn_inception",
    input_shape=(224, 224, 3),
    num_classes=1000,
    source="ioffe2015",
    aliases=("inception_v2", "bninception"),
)
def bn_inception(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    widths: Widths = "caffe",
    use_conv_bias: bool = True,
    epsilon: float = EPSILON,
    dropout_rate: float = 0.0,
) -> nn.Module:
    """BN-Inception (Inception v2) with convolution biases, as in the Caffe-derived definition."""
    return BNInception(
        num_classes=num_classes,
        widths=_checked(widths),
        use_conv_bias=use_conv_bias,
        epsilon=epsilon,
        dropout_rate=dropout_rate,
        dtype=dtype,
    )


@register_model(
    "se_bn_inception",
    input_shape=(224, 224, 3),
    num_classes=1000,
    source="ioffe2015, hu2018",
    aliases=("se_inception",),
)
def se_bn_inception(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    widths: Widths = "caffe",
    use_conv_bias: bool = False,
    epsilon: float = EPSILON,
    gate_scale: bool = True,
    dropout_rate: float = 0.0,
) -> nn.Module:
    """SE-BN-Inception: squeeze-and-excitation on every module, reduction 16."""
    return BNInception(
        num_classes=num_classes,
        widths=_checked(widths),
        use_conv_bias=use_conv_bias,
        epsilon=epsilon,
        gated=True,
        gate_scale=gate_scale,
        dropout_rate=dropout_rate,
        dtype=dtype,
    )
