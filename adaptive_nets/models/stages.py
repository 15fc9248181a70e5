"""Execution of a stage's units, shared by networks of fixed and of adaptive depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
from jaxtyping import Array, Float

RunStage = Callable[[Sequence[nn.Module], Array, bool], Array]
"""Function (units, float[N, H, W, C], train) -> output of the stage."""


def run_sequentially(
    units: Sequence[nn.Module], x: Float[Array, "N H W C"], train: bool
) -> Float[Array, "N H2 W2 O"]:
    """Applies the units one after another."""
    for unit in units:
        x = unit(x, train)
    return x
