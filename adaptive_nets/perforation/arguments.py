"""Argument checks of the mask functions."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from adaptive_nets.runtime.errors import UserError


def check_pair(name: str, value: Any, *, smallest: int = 1) -> tuple[int, int]:
    """Converts a pair of integers, each at least `smallest`, to a tuple of ints.

    Raises:
        UserError: the value is no such pair; the message names the argument.
    """
    try:
        pair = tuple(operator.index(number) for number in value)
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < smallest:
        raise UserError(f"{name} is {value!r}; expected two integers, each at least {smallest}")
    return pair[0], pair[1]


def check_keep(keep: float, shape: Sequence[int]) -> tuple[float, int]:
    """Returns the keep fraction and the number of kept positions, floor(keep·H'·W') in float64.

    Raises:
        UserError: `keep` is outside (0, 1], or so small that no position is kept.
    """
    try:
        fraction = float(keep)
    except (TypeError, ValueError):
        fraction = math.nan
    if not 0 < fraction <= 1:
        raise UserError(f"keep is {keep!r}; expected a fraction in (0, 1]")
    positions = math.prod(shape)
    kept = math.floor(fraction * positions)
    if kept == 0:
        raise UserError(
            f"keep is {keep!r}, which keeps none of {shape[0]}x{shape[1]} positions; expected at "
            f"least {1 / positions:.3g}"
        )
    return fraction, kept
