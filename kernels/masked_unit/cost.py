"""Share of active positions up to which listing them beats computing all, on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Array

# Multiply-accumulates that take as long as gathering an element of a window, from two-core CPUs.
_MACS_PER_GATHER = 95.0


def break_even(kernels: Sequence[Array], positions: int) -> int:
    """Returns the number of active positions beyond which all are computed.

    A listed position costs its multiply-accumulates and the gathering of its windows; a position of
    the dense form costs its multiply-accumulates alone.

    Args:
        kernels: HWIO weights of the unit.
        positions: number of positions, of all images.
    """
    macs = sum(math.prod(w.shape) for w in kernels)
    windows = [w for w in kernels if w.shape[:2] != (1, 1)] or kernels[:1]
    gathered = sum(math.prod(w.shape[:3]) for w in windows)
    return int(macs / (macs + _MACS_PER_GATHER * gathered) * positions)
