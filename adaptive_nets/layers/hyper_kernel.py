"""Convolution kernels made by a small linear network from an embedding of each layer [ha2016].

Kernels depend on parameters only: they are made once for a step, all layers in one batched product,
whatever the number of images.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError


def generate_kernels(
    embeddings: Float[Array, "E Z"],
    hidden_kernel: Float[Array, "Z I D"],
    hidden_bias: Float[Array, "I D"],
    output_kernel: Float[Array, "D h w O"],
    output_bias: Float[Array, "h w O"],
) -> Float[Array, "E h w I O"]:
    """Basic kernels of E embeddings; no nonlinearity.

    a_i = W_i z + B_i for every input channel i, and its slice is K_i = <W_out, a_i> + B_out.

    Args:
        embeddings: z, float[E, Z].
        hidden_kernel: W_i of every input channel i, float[Z, I, D].
        hidden_bias: B_i, float[I, D].
        output_kernel: W_out, shared by all input channels, float[D, h, w, O].
        output_bias: B_out, float[h, w, O].

    Returns:
        float[E, h, w, I, O]: of each embedding a kernel in HWIO.
    """
    hidden = jnp.einsum("ez,zid->eid", embeddings, hidden_kernel) + hidden_bias[None]
    kernels = jnp.einsum("eid,dhwo->ehwio", hidden, output_kernel)
    return kernels + output_bias[None, :, :, None]


def tile_count(inputs: int, outputs: int, basic: tuple[int, int]) -> int:
    """Number of embeddings that a kernel of this many channels needs.

    Raises:
        UserError: basic kernels do not tile it.
    """
    if inputs % basic[0] or outputs % basic[1]:
        raise UserError(
            f"a kernel of {inputs} x {outputs} channels cannot be tiled by {basic[0]} x {basic[1]}"
        )
    return (inputs // basic[0]) * (outputs // basic[1])


def tile_kernels(tiles: Float[Array, "E h w I O"], inputs: int) -> Float[Array, "h w I2 O2"]:
    """Puts basic kernels side by side: tile r·(O2/O) + c covers inputs r, outputs c.

    Args:
        tiles: float[E, h, w, I, O].
        inputs: number of input channels I2 of the whole kernel.
    """
    count, height, width, basic_inputs, basic_outputs = tiles.shape
    rows = inputs // basic_inputs
    grid = tiles.reshape(rows, count // rows, height, width, basic_inputs, basic_outputs)
    return jnp.transpose(grid, (2, 3, 0, 4, 1, 5)).reshape(
        height, width, inputs, (count // rows) * basic_outputs
    )


class HyperKernels(nn.Module):
    """The kernels of all layers that share one hypernetwork.

    Parameters: `embeddings` float[E, Z] of all tiles of all layers, and those of `generate_kernels`
    with D = Z hidden units. They start such that a layer's kernel has about He's variance over its
    fan-in: embeddings are normal, with less variance for layers that see more inputs; the paper
    does not say how it starts.

    Attributes:
        channels: (inputs, outputs) of each layer.
        basic: (inputs, outputs) of the basic kernel that larger ones are tiled from.
        kernel_size: (height, width).
        embedding_size: Z.
    """

    channels: tuple[tuple[int, int], ...]
    basic: tuple[int, int]
    kernel_size: tuple[int, int]
    embedding_size: int

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "h w I O"], ...]:
        """One kernel for each layer, HWIO, float32."""
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
    """A convolution that is given its kernel, float[N, H, W, C] -> float[N, H', W', O].

    It owns at most the bias, which starts at zero. What reads attributes of `flax.linen.Conv`, as
    counting does, finds the same ones.

    Attributes:
        features: number of output channels O.
        kernel_size: (height, width).
        strides: (vertical, horizontal).
        padding: "SAME", "VALID" or ((top, bottom), (left, right)).
        feature_group_count: number of groups of channels that do not see each other.
        use_bias: whether it has a bias.
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
        """Convolves."""
        expected = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        if kernel.shape != expected:
            raise ValueError(f"kernel has shape {kernel.shape}; expected {expected}")
        y = lax.conv_general_dilated(
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
