"""Products with a matrix of few weights, which skip its zeros.

Only the weights that pruning kept are stored, up to K of every output. Step k adds the k-th weight
of all outputs at once, so the work is proportional to K instead of the number of inputs, and every
step reads whole rows of the transposed batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from adaptive_nets.runtime.errors import UserError

LARGEST_SHARE = 1 / 8
"""Largest K over the number of inputs at which the product is faster than the dense one on a CPU,
see `adaptive-nets bench sparse`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseKernel:
    """Kept weights of a matrix [I, O], up to K of every output.

    Attributes:
        inputs: int32[K, O], number of the input of each weight.
        values: float[K, O], the weights; 0 where an output has fewer than K.
    """

    inputs: Int[Array, "K O"]
    values: Float[Array, "K O"]

    @property
    def most(self) -> int:
        """Largest number of weights of an output, K."""
        return len(self.values)


def sparse_kernel(kernel: Float[Any, "I O"]) -> SparseKernel:
    """Collects the weights of a matrix that are not zero.

    Args:
        kernel: float[I, O].

    Raises:
        UserError: the array is no matrix.
    """
    matrix = np.asarray(kernel)
    if matrix.ndim != 2:
        raise UserError(f"kernel has shape {matrix.shape}; expected a matrix [inputs, outputs]")
    kept = matrix != 0
    most = int(kept.sum(axis=0).max(initial=0))
    # A stable sort by "is zero" brings the kept inputs of every output to the front, in order.
    inputs = np.argsort(~kept, axis=0, kind="stable")[:most].astype(np.int32)
    return SparseKernel(jnp.asarray(inputs), jnp.asarray(np.take_along_axis(matrix, inputs, 0)))


def sparse_product(x: Float[Array, "N I"], kernel: SparseKernel) -> Float[Array, "N O"]:
    """Computes the product x·W of a batch and the matrix whose weights `sparse_kernel` collected.

    Args:
        x: float[N, I].
        kernel: kept weights of W, float[I, O].

    Returns:
        float[N, O], up to rounding the dense product.
    """
    dtype = jnp.result_type(x, kernel.values)
    columns = x.T.astype(dtype)

    if not kernel.most:
        return jnp.zeros((x.shape[0], kernel.values.shape[1]), dtype)

    def add(k: Array, total: Array) -> Array:
        return total + columns[kernel.inputs[k]] * kernel.values[k][:, None]

    start = jnp.zeros((kernel.values.shape[1], x.shape[0]), dtype)
    return lax.fori_loop(0, kernel.most, add, start).T
