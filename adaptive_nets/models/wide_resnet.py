"""Wide residual networks for 32x32 images (zagoruyko2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.conv_norm import batch_norm, conv, same_padding
from adaptive_nets.layers.hyper_kernel import GeneratedConv
from adaptive_nets.layers.pooling import global_avg_pool
from adaptive_nets.layers.shortcut import pad_channels, subsample
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

Shortcut = Literal["projection", "zeropad"]

# (depth, widening factor) of the registered networks.
SIZES = ((16, 8), (16, 10), (28, 10), (40, 1), (40, 2), (40, 4))


class WideUnit(nn.Module):
    """Residual unit: BN - ReLU - conv3x3 - BN - ReLU - dropout - conv3x3, plus the shortcut.

    Attributes:
        features: number of output channels.
        strides: strides of the first convolution.
        shortcut: shortcut of a unit that changes the shape: "projection" is a 1x1 convolution of
            the activated input, "zeropad" takes every second pixel and appends zero channels.
        use_bias: whether the convolutions have biases.
        dropout_rate: dropout rate in training (stream ``dropout``).
        dtype: dtype of the computation.
    """

    features: int
    strides: tuple[int, int] = (1, 1)
    shortcut: Shortcut = "projection"
    use_bias: bool = False
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        kernels: tuple[Array, Array] | None = None,
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the unit's output; `kernels` replace the parameters of its 3x3 convolutions."""
        options: dict[str, Any] = {"use_bias": self.use_bias, "dtype": self.dtype}
        y = nn.relu(batch_norm(train, name="bn1", dtype=self.dtype)(x))
        if self.strides != (1, 1) or x.shape[-1] != self.features:
            if self.shortcut == "projection":
                x = conv(
                    self.features, (1, 1), strides=self.strides, name="convShortcut", **options
                )(y)
            elif self.shortcut == "zeropad":
                x = pad_channels(subsample(x, self.strides), self.features, zeros="after")
            else:
                raise UserError(
                    f"shortcut is {self.shortcut!r}; expected 'projection' or 'zeropad'"
                )
        first, second = kernels or (None, None)
        y = self._conv3x3(y, first, strides=self.strides, name="conv1")
        y = nn.relu(batch_norm(train, name="bn2", dtype=self.dtype)(y))
        if self.dropout_rate:
            y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
        return x + self._conv3x3(y, second, strides=(1, 1), name="conv2")

    def _conv3x3(
        self, x: Array, kernel: Array | None, *, strides: tuple[int, int], name: str
    ) -> Array:
        options: dict[str, Any] = {"strides": strides, "use_bias": self.use_bias, "name": name}
        if kernel is None:
            return conv(self.features, (3, 3), dtype=self.dtype, **options)(x)
        return GeneratedConv(
            self.features, (3, 3), padding=same_padding((3, 3)), dtype=self.dtype, **options
        )(x, kernel)


class WideResNet(nn.Module):
    """Wide ResNet: conv3x3, three groups of N units, BN - ReLU, mean, linear.

    The groups have 16 k, 32 k and 64 k channels.

    Attributes:
        depth: number of layers, 6 N + 4, excluding projections.
        widening: widening factor k.
        num_classes: number of logits.
        shortcut: shortcut of units that change the shape, see `WideUnit`.
        use_bias: whether the convolutions have biases.
        dropout_rate: dropout rate between the convolutions of a unit (stream ``dropout``).
        dtype: dtype of the computation.
    """

    depth: int
    widening: int
    num_classes: int = 10
    shortcut: Shortcut = "projection"
    use_bias: bool = False
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        kernels: tuple[Array, ...] | None = None,
    ) -> Float[Array, "N K"]:
        """Computes the logits of a batch of images.

        Args:
            x: float[N, H, W, C].
            train: whether to use batch statistics and dropout.
            kernels: HWIO kernels of the units' 3x3 convolutions in order; None makes them
                parameters of the network.

        Raises:
            UserError: the depth is not 6 N + 4.
        """
        if self.depth < 10 or (self.depth - 4) % 6:
            raise UserError(f"depth is {self.depth}; expected 6 N + 4, such as 28 or 40")
        x = conv(16, (3, 3), use_bias=self.use_bias, dtype=self.dtype, name="conv1")(x)
        units = (self.depth - 4) // 6
        for group in range(3):
            for i in range(units):
                pair = None
                if kernels is not None:
                    start = 2 * (group * units + i)
                    pair = (kernels[start], kernels[start + 1])
                x = WideUnit(
                    16 * 2**group * self.widening,
                    strides=(2, 2) if i == 0 and group > 0 else (1, 1),
                    shortcut=self.shortcut,
                    use_bias=self.use_bias,
                    dropout_rate=self.dropout_rate,
                    dtype=self.dtype,
                    name=f"block{group + 1}_layer_{i}",
                )(x, train, pair)
        x = nn.relu(batch_norm(train, name="bn1", dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(global_avg_pool(x))


def _builder(depth: int, widening: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        depth: int = depth,
        widening: int = widening,
        shortcut: Shortcut = "projection",
        use_bias: bool = False,
        dropout_rate: float = 0.0,
    ) -> nn.Module:
        return WideResNet(
            depth,
            widening,
            num_classes=num_classes,
            shortcut=shortcut,
            use_bias=use_bias,
            dropout_rate=dropout_rate,
            dtype=dtype,
        )

    build.__doc__ = f"Wide ResNet of {depth} layers with widening factor {widening}."
    return build


for _depth, _widening in SIZES:
    for _classes in (10, 100):
        register_model(
            f"wrn{_depth}_{_widening}_cifar{_classes}",
            input_shape=(32, 32, 3),
            num_classes=_classes,
            source="zagoruyko2016",
            aliases=(
                f"wrn_{_depth}_{_widening}_cifar{_classes}",
                f"wide_resnet{_depth}_{_widening}_cifar{_classes}",
            ),
        )(_builder(_depth, _widening))
