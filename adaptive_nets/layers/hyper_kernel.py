"""Static hypernetwork: convolution kernels generated from an embedding per layer [ha2016].

Kernels depend on parameters only, so one batched product generates those of all layers once per
step, independently of the batch size.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError
from kernels.dense_conv import conv_general_dilated


def generate_kernels(
    embeddings: Float[Array, "E Z"],
    hidden_kernel: Float[Array, "Z I D"],
    hidden_bias: Float[Array, "I D"],
    output_kernel: Float[Array, "D h w O"],
    output_bias: Float[Array, "h w O"],
) -> Float[Array, "E h w I O"]:
    """Generates the basic kernels of E embeddings by a two-layer linear network.

    a_i = W_i z + B_i for input channel i, whose slice of the kernel is K_i = <W_out, a_i> + B_out.

    Args:
        embeddings: z, float[E, Z].
        hidden_kernel: W_i of every input channel i, float[Z, I, D].
        hidden_bias: B_i, float[I, D].
        output_kernel: W_out, shared by all input channels, float[D, h, w, O].
        output_bias: B_out, float[h, w, O].

    Returns:
        float[E, h, w, I, O], one HWIO kernel per embedding.
    """
    hidden = jnp.einsum("ez,zid->eid", embeddings, hidden_kernel) + hidden_bias[None]
    kernels = jnp.einsum("eid,dhwo->ehwio", hidden, output_kernel)
    return kernels + output_bias[None, :, :, None]


def tile_count(inputs: int, outputs: int, basic: tuple[int, int]) -> int:
    """Returns the number of embeddings needed to tile a kernel of inputs x outputs channels.

    Raises:
        UserError: the basic kernel size does not divide the kernel.
    """
    if inputs % basic[0] or outputs % basic[1]:
        raise UserError(
            f"a kernel of {inputs} x {outputs} channels cannot be tiled by basic kernels of "
            f"{basic[0]} x {basic[1]}; expected multiples of {basic[0]} inputs and {basic[1]} "
            "outputs"
        )
    return (inputs // basic[0]) * (outputs // basic[1])


def tile_kernels(tiles: Float[Array, "E h w I O"], inputs: int) -> Float[Array, "h w I2 O2"]:
    """Tiles basic kernels: tile r·(O2/O) + c covers input block r and output block c.

    Args:
        tiles: float[E, h, w, I, O].
        inputs: number of input channels I2 of the tiled kernel.
    """
    count, height, width, basic_inputs, basic_outputs = tiles.shape
    rows = inputs // basic_inputs
    grid = tiles.reshape(rows, count // rows, height, width, basic_inputs, basic_outputs)
    return jnp.transpose(grid, (2, 3, 0, 4, 1, 5)).reshape(
        height, width, inputs, (count // rows) * basic_outputs
    )


class HyperKernels(nn.Module):
    """Kernels of all layers that share one hypernetwork.

    Parameters are `embeddings` float[E, Z] of all tiles of all layers, and those of
    `generate_kernels` with D = Z hidden units. Embeddings are initialised normal with a variance
    proportional to 1 / inputs of the layer, so that generated kernels have about the He variance
    over their fan-in. The paper does not state an initialisation.

    Attributes:
        channels: (inputs, outputs) of each layer.
        basic: (inputs, outputs) of the basic kernel.
        kernel_size: (height, width).
        embedding_size: Z.
    """

    channels: tuple[tuple[int, int], ...]
    basic: tuple[int, int]
    kernel_size: tuple[int, int]
    embedding_size: int

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "h w I O"], ...]:
        """Generates one kernel per layer, HWIO, float32."""
        size, (inputs, outputs) = self.embedding_size, self.basic
        counts = [tile_count(*channels, self.basic) for channels in self.channels]
        deviations = [math.sqrt(inputs / layer_inputs) for layer_inputs, _ in self.channels]
        spread = jnp.repeat(
            jnp.asarray(deviations, jnp.float32),
            jnp.asarray(counts),
            total_repeat_length=sum(counts),
        )

        def embeddings_init(key, shape, dtype):
            return initializers.normal(1.0)(key, shape, dtype) * spread[:, None]

        kernels = generate_kernels(
            self.param("embeddings", embeddings_init, (sum(counts), size), jnp.float32),
            self.param(
                "hidden_kernel", initializers.normal(size**-0.5), (size, inputs, size), jnp.float32
            ),
            self.param("hidden_bias", initializers.zeros, (inputs, size), jnp.float32),
            self.param(
                "output_kernel",
                initializers.normal(math.sqrt(2 / (math.prod(self.kernel_size) * inputs * size))),
                (size, *self.kernel_size, outputs),
                jnp.float32,
            ),
            self.param("output_bias", initializers.zeros, (*self.kernel_size, outputs)),
        )
        starts = [sum(counts[:i]) for i in range(len(counts))]
        return tuple(
            tile_kernels(kernels[start : start + count], layer_inputs)
            for start, count, (layer_inputs, _) in zip(starts, counts, self.channels, strict=True)
        )


class GeneratedConv(nn.Module):
    """Convolution that takes its kernel as an argument, float[N, H, W, C] -> float[N, H', W', O].

    It owns only the bias, initialised to zero. Attributes have the names of `flax.linen.Conv`, so
    that code which inspects convolutions, such as MAC counting, handles both.

    Attributes:
        features: number of output channels O.
        kernel_size: (height, width).
        strides: (vertical, horizontal).
        padding: "SAME", "VALID" or ((top, bottom), (left, right)).
        feature_group_count: number of channel groups.
        use_bias: whether to add a bias.
        dtype: dtype of the computation.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: Any = "SAME"
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], kernel: Float[Array, "h w I O"]
    ) -> Float[Array, "N H2 W2 O"]:
        """Convolves `x` with `kernel`."""
        expected = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        if kernel.shape != expected:
            raise ValueError(f"kernel has shape {kernel.shape}; expected {expected}")
        y = conv_general_dilated(
            jnp.asarray(x, self.dtype),
            jnp.asarray(kernel, self.dtype),
            self.strides,
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.feature_group_count,
        )
        if self.use_bias:
            bias = self.param("bias", initializers.zeros, (self.features,), jnp.float32)
            y += bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return y
