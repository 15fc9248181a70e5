"""Choice between listing active positions and computing all of them, on a CPU.

Both times are estimated in ns on one core, from measurements on a two-core machine; their ratio is
what counts. Listed positions pay for gathering windows; all positions pay for convolutions that are
slow with few channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels._common.geometry import is_static
from kernels.masked_unit.chain import dilate

# Multiply-accumulates in a ns: of a product, and of a convolution with 16 input channels, which
# grows with their square root up to that of a product.
_PRODUCT_RATE = 46.0
_CONV_RATE = 23.0
# ns for each element of a gathered window, and for each channel of a position whose state changes.
_GATHER = 1.5
_UPDATE = 1.5
# ns for each position of the map, active or not: its entry in the list, and its row of zeros.
_LISTING = 20.0
_ZEROS = 1.0


def _dense_time(kernels: Sequence[Array]) -> float:
    """Returns the time of a position of the dense path, ns."""
    time = _UPDATE * kernels[-1].shape[3]
    for w in kernels:
        slow = w.shape[:2] != (1, 1)
        rate = min(_PRODUCT_RATE, _CONV_RATE * math.sqrt(w.shape[2] / 16)) if slow else None
        time += math.prod(w.shape) / (rate or _PRODUCT_RATE)
    return time


def _listed_times(kernels: Sequence[Array]) -> tuple[float, list[float]]:
    """Returns the time of every position of the map, and of an active one in each convolution."""
    channels = kernels[-1].shape[3]
    times = [math.prod(w.shape) / _PRODUCT_RATE for w in kernels]
    times = [
        time + _GATHER * math.prod(w.shape[:3]) * (i == 0 or w.shape[:2] != (1, 1))
        for i, (time, w) in enumerate(zip(times, kernels, strict=True))
    ]
    times[-1] += _UPDATE * channels
    return _LISTING + _ZEROS * channels, times


def break_even(kernels: Sequence[Array]) -> float:
    """Returns the share of active positions beyond which all are computed, in [0, 1].

    It is for masks whose dilation adds little; `is_dense_faster` counts what the windows add.

    Args:
        kernels: HWIO weights of the unit.
    """
    fixed, times = _listed_times(kernels)
    return min(max((_dense_time(kernels) - fixed) / sum(times), 0.0), 1.0)


def limit(kernels: Sequence[Array], positions: int) -> int:
    """Returns the number of active positions beyond which all of `positions` are computed."""
    return int(break_even(kernels) * positions)


def is_dense_faster(kernels: Sequence[Array], mask: Bool[Array, "N H W"]) -> Bool[Array, ""]:
    """Checks at run time whether so many positions are active that computing all is faster.

    Args:
        kernels: HWIO weights of the unit.
        mask: bool[N, H, W], active positions of the last convolution; the others are computed where
            the windows after them read.
    """
    fixed, times = _listed_times(kernels)
    shares: list[Float[Array, ""]] = []
    needed = mask
    for w in reversed(kernels):
        shares.insert(0, _share(needed))
        needed = dilate(needed, (w.shape[0], w.shape[1]))
    listed = sum((time * share for time, share in zip(times, shares, strict=True)), start=fixed)
    return jnp.asarray(listed > _dense_time(kernels))


def _share(mask: Bool[Array, "N H W"]) -> Float[Array, ""]:
    size = mask.size if is_static(mask.size) else jnp.asarray(mask.size, jnp.float32)
    return jnp.sum(mask, dtype=jnp.int32) / size
