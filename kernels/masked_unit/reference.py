"""Masked residual unit, slow and plain: all positions computed, the residual masked."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels._common.geometry import make_geometry
from kernels._common.taps import convolve_by_taps
from kernels.masked_unit.chain import BlockState, Chain


def forward(
    state: BlockState,
    mask: Bool[Array, "N H W"],
    chain: Chain,
    share: Float[Array, "N H W"] | None,
) -> BlockState:
    """Runs a unit of any shape; differentiable. Arguments as of `dense_unit.run_dense`."""
    y = chain.before(state.x)
    for i, w in enumerate(chain.kernels):
        geometry = make_geometry(y, w, strides=(1, 1), padding="SAME", groups=1)
        y = chain.after(convolve_by_taps(y, w, geometry).astype(y.dtype), i)
    x, total, sums = state
    out, residual = chain.add(x, y)
    residual = jnp.where(mask[..., None], residual, jnp.zeros((), y.dtype))
    if total is not None and share is not None:
        total = total + (share.astype(residual.dtype)[..., None] * residual).astype(total.dtype)
    if sums is not None:
        sums = sums + jnp.sum(residual.astype(sums.dtype), axis=(1, 2))
    return BlockState(jnp.where(mask[..., None], out, x), total, sums)
