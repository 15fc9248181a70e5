"""Sizes of stages and execution of their units, for networks of fixed and of adaptive depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError

RunStage = Callable[[Sequence[nn.Module], Array, bool], Array]
"""Function (units, float[N, H, W, C], train) -> output of the stage."""


def per_stage(name: str, given: Sequence[int] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    """Returns one positive integer per stage: those given, or the default if None.

    Args:
        name: name of the override, for the message.
        given: value of the override.
        default: value of the published network.

    Raises:
        UserError: the number of stages differs, or a value is not a positive integer.
    """
    if given is None:
        return default
    values = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    integers = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)
    if len(values) != len(default) or not integers:
        raise UserError(f"{name} is {given!r}; expected {len(default)} positive whole numbers")
    return values


def run_sequentially(
    units: Sequence[nn.Module], x: Float[Array, "N H W C"], train: bool
) -> Float[Array, "N H2 W2 O"]:
    """Applies the units one after another."""
    for unit in units:
        x = unit(x, train)
    return x
