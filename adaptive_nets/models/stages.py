"""Ways to run the units of a stage, for networks that exist with fixed and with adaptive depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
from jaxtyping import Array, Float

RunStage = Callable[[Sequence[nn.Module], Array, bool], Array]
"""(units, float[N, H, W, C], train) -> the stage's output."""


def run_sequentially(
    units: Sequence[nn.Module], x: Float[Array, "N H W C"], train: bool
) -> Float[Array, "N H2 W2 O"]:
    """All units, each on the output of the one before."""
    for unit in units:
        x = unit(x, train)
    return x
