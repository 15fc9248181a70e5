"""Cost of what ran, per image, by the rule of the authors' code [figurnov2017].

FLOPs = 2·MACs. A convolution costs 2 · (computed positions) · window · inputs · outputs, taps on
padding included; biases, normalisation, activations, pooling and additions cost nothing. Counted on
the host in int64: a network's sum overflows int32 and float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Int64

from adaptive_nets.halting.positions import dilate
from adaptive_nets.runtime.errors import UserError


def conv_flops(
    positions: int | Int[np.ndarray, "..."], window: tuple[int, int], inputs: int, outputs: int
) -> Int64[np.ndarray, "..."]:
    """FLOPs of a convolution at some positions.

    Args:
        positions: int[...], number of computed positions.
        window: (height, width).
        inputs: input channels, of one group.
        outputs: output channels.

    Returns:
        int64[...].
    """
    return np.asarray(positions, np.int64) * (2 * math.prod(window) * inputs * outputs)


def act_flops(
    num_units: Int[np.ndarray, "..."], unit_flops: Sequence[int] | Int[np.ndarray, "L"]
) -> Int64[np.ndarray, "..."]:
    """FLOPs of blocks that stop after N units: Σ_l 1[N ≥ l] · (FLOPs of unit l).

    Args:
        num_units: int[...], N from 1 to L, per image.
        unit_flops: int[L], each unit with its halting head.

    Returns:
        int64[...].

    Raises:
        UserError: N is outside 1 … L.
    """
    num_units = np.asarray(num_units)
    totals = np.cumsum(np.asarray(unit_flops, np.int64))
    if num_units.size and (num_units.min() < 1 or num_units.max() > totals.size):
        raise UserError(
            f"num_units has values from {num_units.min()} to {num_units.max()}; expected 1 to "
            f"{totals.size}"
        )
    return totals[num_units - 1]


def sact_unit_flops(
    active: Bool[np.ndarray, "N H W"],
    *,
    channels: int,
    kind: Literal["basic", "bottleneck"],
    hidden: int | None = None,
) -> Int64[np.ndarray, "N"]:
    """FLOPs of a residual unit with identity shortcut and stride 1 on active positions.

    The first convolution runs on the mask dilated by 3x3, the others on the mask itself.

    Args:
        active: bool[N, H, W], a^l.
        channels: of the unit's input and output.
        kind: "basic" (3x3, 3x3) or "bottleneck" (1x1, 3x3, 1x1).
        hidden: channels inside; for a bottleneck a quarter of `channels` where not given, for a
            basic unit `channels`.

    Returns:
        int64[N], one per image.

    Raises:
        UserError: `kind` is unknown.
    """
    if kind not in ("basic", "bottleneck"):
        raise UserError(f"kind is {kind!r}; expected 'basic' or 'bottleneck'")
    active = np.asarray(active, np.bool_)
    own = active.sum(axis=(1, 2), dtype=np.int64)
    read = np.asarray(dilate(jnp.asarray(active))).sum(axis=(1, 2), dtype=np.int64)
    if kind == "basic":
        hidden = channels if hidden is None else hidden
        first = conv_flops(read, (3, 3), channels, hidden)
        return first + conv_flops(own, (3, 3), hidden, channels)
    hidden = channels // 4 if hidden is None else hidden
    first = conv_flops(read, (1, 1), channels, hidden)
    middle = conv_flops(own, (3, 3), hidden, hidden)
    return first + middle + conv_flops(own, (1, 1), hidden, channels)


def sact_head_flops(active: Bool[np.ndarray, "N H W"], *, channels: int) -> Int64[np.ndarray, "N"]:
    """FLOPs of a unit's halting head: a 3x3 logit on active positions, a global one always.

    Args:
        active: bool[N, H, W], the unit's own a^l; all true for the first unit.
        channels: of the unit's output.

    Returns:
        int64[N], one per image; the last unit of a block has no head.
    """
    own = np.asarray(active, np.bool_).sum(axis=(1, 2), dtype=np.int64)
    return conv_flops(own, (3, 3), channels, 1) + conv_flops(1, (1, 1), channels, 1)
