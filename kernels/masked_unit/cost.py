"""Share of active positions up to which listing them beats computing all, on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool

from kernels._common.geometry import is_static

# Multiply-accumulates that take as long as gathering an element of a window, from two-core CPUs.
_MACS_PER_GATHER = 95.0


def break_even(kernels: Sequence[Array]) -> float:
    """Returns the share of active positions beyond which all are computed.

    A listed position costs its multiply-accumulates and the gathering of its windows; a position of
    the dense form costs its multiply-accumulates alone.

    Args:
        kernels: HWIO weights of the unit.
    """
    macs = sum(math.prod(w.shape) for w in kernels)
    windows = [w for w in kernels if w.shape[:2] != (1, 1)] or kernels[:1]
    gathered = sum(math.prod(w.shape[:3]) for w in windows)
    return macs / (macs + _MACS_PER_GATHER * gathered)


def limit(kernels: Sequence[Array], positions: int) -> int:
    """Returns the number of active positions beyond which all of `positions` are computed."""
    return int(break_even(kernels) * positions)


def is_dense_faster(kernels: Sequence[Array], mask: Bool[Array, "N H W"]) -> Bool[Array, ""]:
    """Checks at run time whether so many positions are active that computing all is faster."""
    active = jnp.sum(mask, dtype=jnp.int32)
    if is_static(mask.size):
        return active > limit(kernels, mask.size)
    return active > break_even(kernels) * jnp.asarray(mask.size, jnp.float32)
