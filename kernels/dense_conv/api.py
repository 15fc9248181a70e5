"""Dense convolution with the signature of `jax.lax.conv_general_dilated`."""

from __future__ import annotations

from typing import Any

from jax import lax
from jaxtyping import Array

from kernels.dense_conv.primitive import with_fast_convolutions


def conv_general_dilated(
    lhs: Array, rhs: Array, window_strides: Any, padding: Any, **options: Any
) -> Array:
    """Computes `jax.lax.conv_general_dilated`, on a CPU by the fastest of several algorithms.

    Arguments, result, dtype and errors are those of the JAX function. Channel groups are computed
    as ungrouped convolutions or sums over taps, and gradients of the weights as matrix products
    where that is faster than XLA's convolution. The choice depends on shapes alone and is made when
    the program is compiled for a CPU; other platforms get XLA's convolution. In a jaxpr the
    equation has the name and the parameters of JAX's own. Derivatives of any order, forward mode,
    `vmap`, `shard_map` and `jax.export` work as for JAX's function, and derivatives are computed
    by the same algorithms.

    Args:
        lhs: input.
        rhs: weights.
        window_strides: stride of each spatial axis.
        padding: "SAME", "VALID" or (low, high) for each spatial axis.
        **options: further arguments of `jax.lax.conv_general_dilated`.
    """

    def convolve(lhs, rhs):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)

    return with_fast_convolutions(convolve, lhs, rhs)
