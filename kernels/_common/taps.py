"""Reference convolution: a sum over kernel taps of shifted inputs."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels._common.geometry import Geometry
from kernels._common.rows import accumulator


def convolve_by_taps(
    x: Float[Array, "N H W C"], w: Float[Array, "KH KW Cg O"], geometry: Geometry
) -> Float[Array, "N H2 W2 O"]:
    """Computes Σ K(i, j) · U(x + i, y + j) at every position, in the accumulator dtype.

    Args:
        x: float[N, H, W, C].
        w: float[KH, KW, C / groups, O].
        geometry: geometry of the convolution.
    """
    dtype = accumulator(x.dtype)
    padded = jnp.pad(x.astype(dtype), ((0, 0), *geometry.padding, (0, 0)))
    height, width = geometry.output_size
    down, right = geometry.strides
    groups = geometry.groups
    y = jnp.zeros((geometry.batch, height, width, groups, geometry.outputs // groups), dtype)
    for i in range(geometry.window[0]):
        for j in range(geometry.window[1]):
            shifted = padded[:, i:, j:][:, : height * down : down, : width * right : right]
            shifted = shifted.reshape(geometry.batch, height, width, groups, w.shape[2])
            weights = w[i, j].astype(dtype).reshape(w.shape[2], groups, -1)
            y += jnp.einsum("nhwgc,cgo->nhwgo", shifted, weights, precision=lax.Precision.HIGHEST)
    return y.reshape(geometry.batch, height, width, geometry.outputs)
