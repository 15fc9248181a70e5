"""Break-even of gathered-row products against the dense convolution on a CPU."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool

from kernels._common.cost import GATHER, ROW_ENDS
from kernels._common.geometry import Geometry, is_static


def break_even(geometry: Geometry) -> float:
    """Returns the share of active positions above which dense is faster, at most 1."""
    per_group = geometry.outputs / geometry.groups
    dense = 1.0 if geometry.pointwise else 1 + ROW_ENDS / max(geometry.output_size[1], 1)
    return min(dense / (1 + GATHER / per_group), 1.0)


def limit(geometry: Geometry, capacity: int | None) -> int | None:
    """Returns the number of active positions over all images above which all are computed.

    None means that it is never reached, or that the batch is symbolic (`jax.export`).
    """
    share = break_even(geometry)
    if not is_static(geometry.batch):
        return capacity if share == 1 else None
    positions = geometry.batch * geometry.positions
    most = min(int(share * positions), positions if capacity is None else capacity)
    return None if most >= positions else most


def may_exceed_limit(geometry: Geometry, capacity: int | None) -> bool:
    """Checks whether a mask can have more active positions than the limit."""
    if is_static(geometry.batch):
        return limit(geometry, capacity) is not None
    return capacity is not None or break_even(geometry) < 1


def exceeds_limit(
    mask: Bool[Array, "N H2 W2"], geometry: Geometry, capacity: int | None
) -> Bool[Array, ""] | None:
    """Compares the number of active positions with the limit at run time.

    Args:
        mask: mask of active output positions.
        geometry: geometry of the convolution.
        capacity: number of active positions above which every position is computed.

    Returns:
        Whether every position is computed; None if never.
    """
    if not may_exceed_limit(geometry, capacity):
        return None
    active = jnp.sum(mask, dtype=jnp.int32)
    most = limit(geometry, capacity)
    if most is not None:
        return active > most
    # The break-even of a symbolic batch is computed at run time.
    room = break_even(geometry) * jnp.asarray(mask.size, jnp.float32)
    return active > (room if capacity is None else jnp.minimum(room, float(capacity)))
