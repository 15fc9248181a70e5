"""Reference masked convolution: computes every position and zeroes the inactive ones."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels._common.geometry import Geometry
from kernels._common.taps import convolve_by_taps


def forward(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    mask: Bool[Array, "N H2 W2"],
    geometry: Geometry,
) -> Float[Array, "N H2 W2 O"]:
    """Computes the masked convolution for any shapes; differentiable."""
    y = convolve_by_taps(x, w, geometry).astype(x.dtype)
    return jnp.where(mask[..., None], y, jnp.zeros((), y.dtype))
