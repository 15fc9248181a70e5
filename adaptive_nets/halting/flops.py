"""FLOPs of executed units per image, by the convention of the authors' code [figurnov2017].

FLOPs = 2·MACs. A convolution costs 2 · (computed positions) · window · inputs · outputs, taps on
padding included; biases, normalisation, activations, pooling and additions cost nothing. Counts are
int64 on the host: the total of a network overflows int32 and is inexact in float32.
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
    """Counts FLOPs of a convolution over its computed positions.

    Args:
        positions: int[...], number of computed positions.
        window: (height, width).
        inputs: input channels per group.
        outputs: output channels.

    Returns:
        int64[...].
    """
    return np.asarray(positions, np.int64) * (2 * math.prod(window) * inputs * outputs)


def act_flops(
    num_units: Int[np.ndarray, "..."], unit_flops: Sequence[int] | Int[np.ndarray, "L"]
) -> Int64[np.ndarray, "..."]:
    """Counts FLOPs of blocks that stop after N units: Σ_l 1[N ≥ l] · (FLOPs of unit l).

    Args:
        num_units: int[...], N from 1 to L, per image.
        unit_flops: int[L], FLOPs of each unit including its halting head.

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
    """Counts FLOPs of a stride-1 residual unit with identity shortcut at active positions.

    The first convolution runs on the mask dilated by 3x3, the others on the mask itself.

    Args:
        active: bool[N, H, W], a^l.
        channels: channels of the unit's input and output.
        kind: "basic" (3x3, 3x3) or "bottleneck" (1x1, 3x3, 1x1).
        hidden: inner channels; by default `channels` for a basic unit and `channels` // 4 for a
            bottleneck.

    Returns:
        int64[N], one per image.

    Raises:
        UserError: `kind` is unknown.
    """
    if kind not in ("basic", "bottleneck"):
        raise UserError(f"kind is {kind!r}; expected 'basic' or 'bottleneck'")
    active = np.asarray(active, np.bool_)
    count = active.sum(axis=(1, 2), dtype=np.int64)
    dilated_count = np.asarray(dilate(jnp.asarray(active))).sum(axis=(1, 2), dtype=np.int64)
    if kind == "basic":
        hidden = channels if hidden is None else hidden
        first = conv_flops(dilated_count, (3, 3), channels, hidden)
        return first + conv_flops(count, (3, 3), hidden, channels)
    hidden = channels // 4 if hidden is None else hidden
    first = conv_flops(dilated_count, (1, 1), channels, hidden)
    middle = conv_flops(count, (3, 3), hidden, hidden)
    return first + middle + conv_flops(count, (1, 1), hidden, channels)


def sact_head_flops(active: Bool[np.ndarray, "N H W"], *, channels: int) -> Int64[np.ndarray, "N"]:
    """Counts FLOPs of a halting head: a 3x3 logit at active positions and one global logit.

    The last unit of a block has no head.

    Args:
        active: bool[N, H, W], a^l of the same unit; all True for the first unit.
        channels: channels of the unit's output.

    Returns:
        int64[N], one per image.
    """
    count = np.asarray(active, np.bool_).sum(axis=(1, 2), dtype=np.int64)
    return conv_flops(count, (3, 3), channels, 1) + conv_flops(1, (1, 1), channels, 1)
