"""A residual unit at the active positions of a run-time mask, its inner maps never written whole.

The unit of spatially adaptive computation time [figurnov2017]: convolutions one after another with
ReLU between them, added to the input where the mask is True and nowhere else. Each convolution is
evaluated where a later one reads it: the mask, dilated by the windows that follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels.masked_unit.dense_unit import run_dense
from kernels.masked_unit.sparse_unit import BlockState, Chain, dilate, run_sparse

__all__ = ["BlockState", "dilate", "masked_unit", "masked_unit_with_sums"]

ExecutionPath = Literal["sparse", "dense"]


def masked_unit(
    x: Float[Array, "N H W C"],
    mask: Bool[Array, "N H W"],
    kernels: Sequence[Float[Array, "KH KW I O"]],
    biases: Sequence[Float[Array, " O"] | None] | None = None,
    *,
    scale: Float[Array, " C"] | None = None,
    shift: Float[Array, " C"] | None = None,
    negative_slope: float = 0.0,
    way: ExecutionPath | None = None,
) -> Float[Array, "N H W C"]:
    """X + mask · f(x) with f a chain of stride-1 convolutions and ReLUs, f computed where needed.

    ``f(x) = conv_L(relu(... relu(conv_1(pre(x)) + b_1) ...)) + b_L``, and ``pre(x) = relu(x·scale +
    shift)`` where a scale or shift is given (the normalisation before a pre-activation unit), x
    itself otherwise. For inference: it has no gradient with way="sparse".

    Args:
        x: float[N, H, W, C].
        mask: bool[N, H, W], a run-time array; a new one runs the same program.
        kernels: HWIO weights, odd windows, all with SAME padding and stride 1; the last one has C
            outputs. (1x1, 3x3, 1x1) is a bottleneck, (3x3, 3x3) a basic unit.
        biases: one per kernel, None for none.
        scale: float[C].
        shift: float[C].
        negative_slope: of the ReLUs, for negative arguments.
        way: "sparse" or "dense"; None takes the dense one, at run time, where so much is active
            that listing positions does not pay.

    Returns:
        float[N, H, W, C].

    Raises:
        ValueError: shapes that do not fit.
    """
    return masked_unit_with_sums(
        BlockState(x),
        mask,
        kernels,
        biases,
        scale=scale,
        shift=shift,
        negative_slope=negative_slope,
        way=way,
    ).x


def masked_unit_with_sums(
    state: BlockState,
    mask: Bool[Array, "N H W"],
    kernels: Sequence[Float[Array, "KH KW I O"]],
    biases: Sequence[Float[Array, " O"] | None] | None = None,
    *,
    share: Float[Array, "N H W"] | None = None,
    scale: Float[Array, " C"] | None = None,
    shift: Float[Array, " C"] | None = None,
    negative_slope: float = 0.0,
    way: ExecutionPath | None = None,
) -> BlockState:
    """`masked_unit` that also keeps up, at no more positions, what a block derives from its states.

    ``total + share · mask · f(x)`` is the weighted sum of all states if it begins as the first one
    and the share is the weight that is left before the unit; sums of x over positions cost nothing.

    Args:
        state: before the unit; what of it is None stays None.
        mask: as of `masked_unit`.
        kernels: as of `masked_unit`.
        biases: as of `masked_unit`.
        share: float[N, H, W], of the residual in the total; given if there is a total.
        scale: as of `masked_unit`.
        shift: as of `masked_unit`.
        negative_slope: as of `masked_unit`.
        way: as of `masked_unit`.

    Returns:
        The state after the unit.

    Raises:
        ValueError: shapes that do not fit.
    """
    biases = (None,) * len(kernels) if biases is None else tuple(biases)
    chain = Chain(tuple(kernels), biases, scale, shift, negative_slope)
    _check(state, mask, chain, share)
    every_way = {
        "sparse": lambda: run_sparse(state, mask, chain, share),
        "dense": lambda: run_dense(state, mask, chain, share),
    }
    if way is not None:
        return every_way[way]()
    return lax.cond(
        jnp.sum(mask, dtype=jnp.int32) > _dense_threshold(kernels) * mask.size,
        every_way["dense"],
        every_way["sparse"],
    )


# Multiply-accumulates that take as long as gathering an element of a window, from two-core CPUs.
_MACS_PER_GATHER = 95.0


def _dense_threshold(kernels: Sequence[Array]) -> float:
    """Share of active positions beyond which listing them no longer pays.

    A listed position costs its multiply-accumulates and the gathering of its windows, in the dense
    form every one its multiply-accumulates alone.
    """
    macs = sum(math.prod(w.shape) for w in kernels)
    windows = [w for w in kernels if w.shape[:2] != (1, 1)] or kernels[:1]
    gathered = sum(math.prod(w.shape[:3]) for w in windows)
    return macs / (macs + _MACS_PER_GATHER * gathered)


def _check(state: BlockState, mask: Array, chain: Chain, share: Array | None) -> None:
    size, channels = tuple(state.x.shape[:3]), state.x.shape[3]
    if tuple(mask.shape) != size or mask.dtype != jnp.bool_:
        raise ValueError(f"mask is {mask.dtype}{list(mask.shape)}; expected bool{list(size)}")
    if len(chain.biases) != len(chain.kernels) or not chain.kernels:
        raise ValueError(
            f"{len(chain.biases)} biases for {len(chain.kernels)} kernels; expected one for each"
        )
    for i, w in enumerate(chain.kernels):
        if w.ndim != 4 or w.shape[2] != channels or not (w.shape[0] % 2 and w.shape[1] % 2):
            raise ValueError(
                f"kernels[{i}] has shape {w.shape}; expected [odd, odd, {channels}, outputs]"
            )
        channels = w.shape[3]
    if channels != state.x.shape[3]:
        raise ValueError(f"the last kernel has {channels} outputs; expected {state.x.shape[3]}")
    if state.total is not None and (share is None or tuple(share.shape) != size):
        found = None if share is None else list(share.shape)
        raise ValueError(f"share is {found}; expected float{list(size)} beside a total")
