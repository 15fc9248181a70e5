"""Reference perforated convolution: computes every position and gathers the kept ones."""

from __future__ import annotations

from jaxtyping import Array, Float

from kernels._common.geometry import Geometry
from kernels._common.taps import convolve_by_taps
from kernels.perforated_conv.compact import dense_positions
from kernels.perforated_conv.plan import Plan


def forward(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    geometry: Geometry,
    plan: Plan,
) -> Float[Array, "N P O"]:
    """Computes the compact output for any shapes; differentiable."""
    return dense_positions(convolve_by_taps(x, w, geometry), plan).astype(x.dtype)
