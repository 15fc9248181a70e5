"""Masked residual unit from XLA's own operations: everywhere, differentiable, fast on CPU.

The sparse path computes listed positions, in loops of run-time length; the dense path computes all
of them. One program serves all masks.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels._common.geometry import is_empty
from kernels.masked_unit import cost
from kernels.masked_unit.chain import BlockState, Chain
from kernels.masked_unit.dense_unit import run_dense
from kernels.masked_unit.sparse_unit import run_sparse

ExecutionPath = Literal["sparse", "dense"]


def forward(
    state: BlockState,
    mask: Bool[Array, "N H W"],
    chain: Chain,
    share: Float[Array, "N H W"] | None,
    path: ExecutionPath | None,
) -> BlockState:
    """Runs a unit.

    Args:
        state: state before the unit.
        mask: bool[N, H, W].
        chain: residual function of the unit.
        share: float[N, H, W], share of the residual in `state.total`; None without a total.
        path: "sparse" or "dense"; None decides at run time, by the number of active positions.

    Returns:
        The state after the unit.
    """
    if is_empty(*state.x.shape):
        return state
    if path == "dense":
        return run_dense(state, mask, chain, share)
    arrays = (chain.kernels, chain.biases, chain.scale, chain.shift)
    form = (chain.negative_slope, chain.activates_sum)
    return _run(path, form, state, mask, arrays, share)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _run(path, form, state, mask, arrays, share) -> BlockState:
    chain = Chain(*arrays, *form)
    if path == "sparse":
        return run_sparse(state, mask, chain, share)
    return lax.cond(
        cost.is_dense_faster(chain.kernels, mask),
        lambda: run_dense(state, mask, chain, share),
        lambda: run_sparse(state, mask, chain, share),
    )


@_run.defjvp
def _differentiate(path, form, primals: Any, tangents: Any):
    """Differentiates the dense path: loops of run-time length have no reverse mode."""
    state, mask, arrays, share = primals
    d_state, _, d_arrays, d_share = tangents

    # What the derivative reads is computed again in a backward pass, not stored by the forward one.
    @jax.checkpoint
    def dense(state, arrays, share):
        return run_dense(state, mask, Chain(*arrays, *form), share)

    _, tangent = jax.jvp(dense, (state, arrays, share), (d_state, d_arrays, d_share))
    return _run(path, form, *primals), tangent
