"""Static hypernetworks: networks whose convolution kernels another network generates [ha2016]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import GeneratedConv, HyperKernels, max_pool
from adaptive_nets.layers.kernel_init import HE_FAN_IN
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.wide_resnet import Shortcut, WideResNet


class MnistConvNet(nn.Module):
    """conv 16@7x7, ReLU, pool, conv 16@7x7, ReLU, pool, dense: the second kernel may be generated.

    Padding keeps the size, so the dense layer sees 784 features. Convolutions start He-normal.

    Attributes:
        num_classes: number of logits.
        embedding_size: numbers Z that the second kernel is generated from, and hidden units of
            the hypernetwork; 0 where the kernel is a parameter of its own.
        dtype: dtype of the computation.
    """

    num_classes: int = 10
    embedding_size: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        del train
        options: dict[str, Any] = {"padding": "SAME", "dtype": self.dtype}
        init = {"kernel_init": HE_FAN_IN}
        x = nn.Conv(16, (7, 7), name="conv1", **init, **options)(x)
        x = max_pool(nn.relu(x), (2, 2))
        if self.embedding_size:
            (kernel,) = HyperKernels(
                ((16, 16),), (16, 16), (7, 7), self.embedding_size, name="hypernet"
            )()
            x = GeneratedConv(16, (7, 7), name="conv2", **options)(x, kernel)
        else:
            x = nn.Conv(16, (7, 7), name="conv2", **init, **options)(x)
        x = max_pool(nn.relu(x), (2, 2))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(x.reshape(x.shape[0], -1))


class HyperWideResNet(nn.Module):
    """Wide residual network whose units' 3x3 kernels one hypernetwork generates.

    Kernels are tiled from basic ones of 16 x 16 channels, each from an embedding of its own. Stem,
    classifier, normalisation, biases and any projections are the network's own. Whether the
    published networks pad shortcuts and have biases is not stated; both is what their published
    sizes fit.

    Attributes:
        depth: 6 N + 4.
        widening: k.
        num_classes: number of logits.
        embedding_size: numbers Z of an embedding, and hidden units of the hypernetwork.
        shortcut: where the shape changes, see `WideUnit`.
        use_bias: whether the convolutions have biases.
        dtype: dtype of the computation; kernels are generated in float32.
    """

    depth: int = 40
    widening: int = 1
    num_classes: int = 10
    embedding_size: int = 64
    shortcut: Shortcut = "zeropad"
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        kernels = HyperKernels(
            unit_channels(self.depth, self.widening),
            (16, 16),
            (3, 3),
            self.embedding_size,
            name="hypernet",
        )()
        return WideResNet(
            self.depth,
            self.widening,
            num_classes=self.num_classes,
            shortcut=self.shortcut,
            use_bias=self.use_bias,
            dtype=self.dtype,
            name="net",
        )(x, train, kernels)


def unit_channels(depth: int, widening: int) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of the 3x3 convolutions in the units of a wide residual network, in order.

    Args:
        depth: 6 N + 4.
        widening: k; groups have 16 k, 32 k and 64 k channels.
    """
    channels, before = [], 16
    for width in (16 * widening, 32 * widening, 64 * widening):
        for _ in range((depth - 4) // 6):
            channels += [(before, width), (width, width)]
            before = width
    return tuple(channels)


_DIGITS = {"input_shape": (28, 28, 1), "num_classes": 10, "source": "ha2016"}


@register_model("hypernet_mnist", **_DIGITS)
def hypernet_mnist(
    *, num_classes: int, dtype: Any = jnp.float32, embedding_size: int = 4
) -> nn.Module:
    """Two 7x7 convolutions, the second's kernel generated from four numbers."""
    return MnistConvNet(num_classes=num_classes, embedding_size=embedding_size, dtype=dtype)


@register_model("hypernet_mnist_baseline", **_DIGITS)
def hypernet_mnist_baseline(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """Two ordinary 7x7 convolutions, what the MNIST hypernetwork is compared with."""
    return MnistConvNet(num_classes=num_classes, embedding_size=0, dtype=dtype)


def _builder(widening: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        depth: int = 40,
        embedding_size: int = 64,
        shortcut: Shortcut = "zeropad",
        use_bias: bool = True,
    ) -> nn.Module:
        return HyperWideResNet(
            depth,
            widening,
            num_classes=num_classes,
            embedding_size=embedding_size,
            shortcut=shortcut,
            use_bias=use_bias,
            dtype=dtype,
        )

    build.__doc__ = f"Wide ResNet of 40 layers, {widening} times as wide, kernels generated."
    return build


for _widening in (1, 2):
    register_model(
        f"hyper_wrn40_{_widening}_cifar10",
        input_shape=(32, 32, 3),
        num_classes=10,
        source="ha2016",
        aliases=(f"hyper_wrn40_{_widening}", f"hyper_wrn_40_{_widening}_cifar10"),
    )(_builder(_widening))
