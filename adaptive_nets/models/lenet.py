"""LeNet-5 of 1998 and its simplified forms; LeNet-300-100 and LeNet-5-Caffe, also variational."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers import PLAIN, LayerKind, SparseVDLayers, avg_pool, max_pool
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.sparse_vd import Parameterisation
from adaptive_nets.models.mlp import MultilayerPerceptron
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational.sparsity import THRESHOLD

_DIGITS = {"input_shape": (28, 28, 1), "num_classes": 10}
_PADDED_DIGITS = {"input_shape": (32, 32, 1), "num_classes": 10}

# Input maps (of S2) of each of the sixteen maps of C3 [lecun1998, table I].
C3_WIRING = (
    *(tuple(sorted((i + j) % 6 for j in range(3))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in range(4))) for i in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)
# Number of units of F6, and bits of a class code: a 7x12 bitmap in [lecun1998].
CODE_LENGTH = 84
_PRIME = 2**31 - 1


def squash(x: Array) -> Array:
    """Computes the activation of [lecun1998], 1.7159 tanh(2x / 3), which maps ±1 close to ±1."""
    return 1.7159 * jnp.tanh(2.0 / 3.0 * x)


def class_codes(num_classes: int) -> np.ndarray:
    """Returns fixed output codes of +1 and -1 for LeNet-5.

    [lecun1998] uses hand-drawn bitmaps of characters, which are not reproduced here, and names
    random codes as the alternative. Bit j of class k is the quadratic character of 84 k + j + 1
    modulo the prime 2**31 - 1 (+1 for a square): pseudo-random, identical on every platform, and
    independent of the number of classes.

    Returns:
        float32[num_classes, 84].
    """
    numbers = range(1, num_classes * CODE_LENGTH + 1)
    squares = [pow(n, (_PRIME - 1) // 2, _PRIME) == 1 for n in numbers]
    return np.where(squares, 1, -1).astype(np.float32).reshape(num_classes, CODE_LENGTH)


class Subsampling(nn.Module):
    """Sums over 2x2 windows, times a gain, plus a bias, both trainable and one per map."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H2 W2 C"]:
        """Returns maps of half the size before the activation; initially, averages."""
        shape = (x.shape[-1],)
        gain = self.param("gain", initializers.constant(0.25), shape, jnp.float32)
        bias = self.param("bias", initializers.zeros, shape, jnp.float32)
        gain, bias = (p.astype(self.dtype)[None, None, None] for p in (gain, bias))
        return gain * (4 * avg_pool(x, (2, 2))) + bias


class PartialC3(nn.Module):
    """C3 of [lecun1998]: sixteen 5x5 convolutions with the input maps of `C3_WIRING`.

    Convolutions with the same number of inputs form one grouped convolution: ``three``, ``four``,
    ``six``.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W 6"]) -> Float[Array, "N H2 W2 16"]:
        """Returns the sixteen maps in the order of the wiring."""
        maps = []
        for name, reads in (("three", 3), ("four", 4), ("six", 6)):
            wired = [inputs for inputs in C3_WIRING if len(inputs) == reads]
            layer = Conv(
                len(wired),
                (5, 5),
                padding="VALID",
                feature_group_count=len(wired),
                dtype=self.dtype,
                name=name,
            )
            maps.append(layer(x[..., np.concatenate(wired)]))
        return jnp.concatenate(maps, axis=-1)


class LeNet5(nn.Module):
    """LeNet-5 [lecun1998] for 32x32 images: C1, S2, C3, S4, C5, F6 and ten outputs.

    The published form has 60,000 trainable parameters: partial C3, trainable subsampling, and
    logits that are negative squared distances from F6 to fixed codes. With ``fixed_codes=False``
    the output layer is a trained dense layer. Kernels start at N(0, 1 / fan-in).

    Attributes:
        num_classes: number of logits.
        partial_c3: whether C3 has the paper's wiring instead of reading all maps.
        trainable_subsampling: whether S2 and S4 have a gain and a bias per map and an activation,
            instead of being plain averages.
        fixed_codes: whether the outputs are distances to `class_codes` instead of a dense layer.
        dtype: dtype of the computation.
    """

    num_classes: int = 10
    partial_c3: bool = False
    trainable_subsampling: bool = False
    fixed_codes: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N 32 32 C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images.

        Raises:
            UserError: the images are not 32x32.
        """
        del train
        if x.shape[1:3] != (32, 32):
            raise UserError(
                f"images are {x.shape[1]}x{x.shape[2]}; LeNet-5 expects 32x32, pad smaller images"
            )
        activation = squash if self.trainable_subsampling else nn.tanh

        def convolve(x, name, features):
            layer = Conv(features, (5, 5), padding="VALID", dtype=self.dtype, name=name)
            return activation(layer(x))

        def subsample(x, name):
            if self.trainable_subsampling:
                return activation(Subsampling(self.dtype, name=name)(x))
            return avg_pool(x, (2, 2))

        x = subsample(convolve(x, "c1", 6), "s2")
        if self.partial_c3:
            x = activation(PartialC3(self.dtype, name="c3")(x))
        else:
            x = convolve(x, "c3", 16)
        x = convolve(subsample(x, "s4"), "c5", 120)
        x = x.reshape(x.shape[0], -1)
        x = activation(nn.Dense(CODE_LENGTH, dtype=self.dtype, name="f6")(x))
        if not self.fixed_codes:
            return nn.Dense(self.num_classes, dtype=self.dtype, name="output")(x)
        codes = jnp.asarray(class_codes(self.num_classes), self.dtype)
        return -jnp.sum(jnp.square(x[:, None, :] - codes[None]), axis=-1)


class LeNet5Caffe(nn.Module):
    """LeNet-5 in Caffe's form, 430,500 weights for ten classes.

    Layers: conv 20@5x5, pool, conv 50@5x5, pool, fc 500, fc. Unlike the network of 1998 it takes
    28x28 inputs, has max pooling, ReLU (also after both convolutions, as in [molchanov2017]) and no
    wiring table.
    """

    num_classes: int = 10
    layers: LayerKind = PLAIN
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        options = {"train": train, "dtype": self.dtype}
        x = self.layers.conv(20, (5, 5), name="conv1", padding="VALID", **options)(x)
        x = max_pool(nn.relu(x), (2, 2))
        x = self.layers.conv(50, (5, 5), name="conv2", padding="VALID", **options)(x)
        x = max_pool(nn.relu(x), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(self.layers.dense(500, name="fc1", **options)(x))
        return self.layers.dense(self.num_classes, name="fc2", **options)(x)


@register_model("lenet5", **_PADDED_DIGITS, source="lecun1998", aliases=("lenet_5", "lenet-5"))
def lenet5(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """LeNet-5 in its plain form: full C3, average pooling, tanh, softmax outputs."""
    return LeNet5(num_classes=num_classes, dtype=dtype)


@register_model("lenet5_partial", **_PADDED_DIGITS, source="lecun1998")
def lenet5_partial(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """LeNet-5 with the wiring of 1998 in C3, average pooling, tanh, softmax outputs."""
    return LeNet5(num_classes=num_classes, partial_c3=True, dtype=dtype)


@register_model("lenet5_1998", **_PADDED_DIGITS, source="lecun1998", aliases=("lenet5_original",))
def lenet5_1998(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """LeNet-5 of 1998: partial C3, trainable subsampling, distances to fixed codes."""
    return LeNet5(
        num_classes=num_classes,
        partial_c3=True,
        trainable_subsampling=True,
        fixed_codes=True,
        dtype=dtype,
    )


@register_model(
    "lenet_300_100",
    **_DIGITS,
    source="lecun1998, hansen2015",
    aliases=("lenet300", "lenet-300-100"),
)
def lenet_300_100(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """LeNet-300-100: two hidden layers of 300 and 100 units, ReLU."""
    return MultilayerPerceptron(hidden=(300, 100), num_classes=num_classes, dtype=dtype)


@register_model(
    "lenet_300_100_sparse_vd", **_DIGITS, source="molchanov2017", aliases=("lenet300_sparse_vd",)
)
def lenet_300_100_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = True,
    clip_noise: bool = True,
    parameterisation: Parameterisation = "additive",
) -> nn.Module:
    """LeNet-300-100 with sparse variational dropout in every layer."""
    layers = SparseVDLayers(
        log_sigma2_init, threshold, mask_in_training, clip_noise, parameterisation
    )
    return MultilayerPerceptron(
        hidden=(300, 100), num_classes=num_classes, layers=layers, dtype=dtype
    )


@register_model(
    "lenet5_caffe",
    **_DIGITS,
    source="lecun1998, jia2014",
    aliases=("lenet_5_caffe", "lenet-5-caffe"),
)
def lenet5_caffe(*, num_classes: int, dtype: Any = jnp.float32) -> nn.Module:
    """LeNet-5-Caffe: two convolutions, two dense layers, ReLU."""
    return LeNet5Caffe(num_classes=num_classes, dtype=dtype)


@register_model("lenet5_caffe_sparse_vd", **_DIGITS, source="molchanov2017")
def lenet5_caffe_sparse_vd(
    *,
    num_classes: int,
    dtype: Any = jnp.float32,
    log_sigma2_init: float = -10.0,
    threshold: float = THRESHOLD,
    mask_in_training: bool = True,
    clip_noise: bool = True,
    parameterisation: Parameterisation = "additive",
) -> nn.Module:
    """LeNet-5-Caffe with sparse variational dropout in every layer."""
    layers = SparseVDLayers(
        log_sigma2_init, threshold, mask_in_training, clip_noise, parameterisation
    )
    return LeNet5Caffe(num_classes=num_classes, layers=layers, dtype=dtype)
