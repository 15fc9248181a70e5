"""Masked residual unit from XLA's own operations: everywhere, differentiable, fast on CPU.

The sparse path computes listed positions, in loops of run-time length; the dense path computes all
of them. One program serves all masks.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

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
    if not state.x.size:
        return state
    if path == "dense":
        return run_dense(state, mask, chain, share)
    arrays = (chain.kernels, chain.biases, chain.scale, chain.shift)
    return _run(path, chain.negative_slope, state, mask, arrays, share)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(path, negative_slope, state, mask, arrays, share) -> BlockState:
    chain = Chain(*arrays, negative_slope=negative_slope)
    if path == "sparse":
        return run_sparse(state, mask, chain, share)
    return lax.cond(
        jnp.sum(mask, dtype=jnp.int32) > cost.break_even(chain.kernels, mask.size),
        lambda: run_dense(state, mask, chain, share),
        lambda: run_sparse(state, mask, chain, share),
    )


def _forward(path, negative_slope, state, mask, arrays, share):
    return _run(path, negative_slope, state, mask, arrays, share), (state, mask, arrays, share)


def _backward(path, negative_slope, residuals: Any, cotangents: Any):
    """Differentiates the dense path: loops of run-time length have no reverse mode."""
    del path
    state, mask, arrays, share = residuals

    def dense(state, arrays, share):
        return run_dense(state, mask, Chain(*arrays, negative_slope=negative_slope), share)

    _, pull = jax.vjp(dense, state, arrays, share)
    d_state, d_arrays, d_share = pull(cotangents)
    return d_state, None, d_arrays, d_share


_run.defvjp(_forward, _backward)
