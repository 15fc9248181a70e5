"""Argument checks of this package."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from adaptive_nets.runtime.errors import UserError


def as_map(name: str, value: Any) -> Float64[np.ndarray, "H W"]:
    """Converts a map to float64[H, W].

    Raises:
        UserError: it has other axes, no pixels, no numbers, or numbers that are not finite; the
            message names it.
    """
    try:
        array = np.asarray(value)
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {value!r}; expected an array of numbers") from None
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{name} has shape {array.shape}; expected [H, W] with at least one pixel")
    if not np.isfinite(array).all():
        found = array[~np.isfinite(array)][0]
        raise UserError(f"{name} holds {found}; expected finite numbers")
    return array


def as_density(name: str, value: Any) -> Float64[np.ndarray, "H W"]:
    """Converts a map of non-negative numbers to float64[H, W] of sum 1.

    Raises:
        UserError: as `as_map`, or a number is negative, or all are 0.
    """
    array = as_map(name, value)
    if array.min() < 0:
        raise UserError(
            f"{name} holds {array.min():.4g}; expected a density, numbers of at least 0"
        )
    # Divided first: the sum of large numbers may overflow.
    largest = array.max()
    if largest == 0:
        raise UserError(f"{name} is 0 everywhere; expected a density with a positive sum")
    array = array / largest
    return array / array.sum()


def as_fixations(value: Any, shape: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """Converts a fixation map, True at fixated pixels, to bool[H, W].

    Raises:
        UserError: it has another shape than the saliency map, values other than 0 and 1, or no
            fixation.
    """
    array = np.asarray(value)
    if array.shape != shape:
        raise UserError(
            f"fixations have shape {array.shape}; expected {shape}, that of the saliency map"
        )
    if array.dtype != np.bool_:
        if not np.isin(array, (0, 1)).all():
            raise UserError(
                f"fixations have dtype {array.dtype} and values other than 0 and 1; expected "
                "bool[H, W] (fixations_from_density makes one of a blurred map)"
            )
        array = array.astype(np.bool_)
    if not array.any():
        raise UserError("fixations are False everywhere; expected at least one fixated pixel")
    return array


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Checks that a map has the size of another.

    Raises:
        UserError: it has another size.
    """
    if array.shape != shape:
        raise UserError(
            f"{name} has shape {array.shape}; expected {shape}, that of the saliency map"
        )


def as_size(value: Any) -> tuple[int, int]:
    """Returns (H, W) of a map.

    Raises:
        UserError: the value is no pair of positive integers.
    """
    try:
        height, width = (operator.index(part) for part in value)
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise UserError(f"shape is {value!r}; expected (H, W), two positive integers")
    return height, width


def as_number(
    name: str, value: Any, *, low: float = 0.0, high: float = math.inf, open_low: bool = False
) -> float:
    """Returns a finite number from `low` to `high`.

    Args:
        name: name of the argument.
        value: the argument.
        low: smallest accepted number.
        high: largest accepted number.
        open_low: whether `low` itself is refused.

    Raises:
        UserError: it is no number, or out of range; the message names it.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    inside = (number > low if open_low else number >= low) and number <= high
    if not inside or not math.isfinite(number):
        least = f"above {low:g}" if open_low else f"of at least {low:g}"
        most = "" if math.isinf(high) else f" and at most {high:g}"
        raise UserError(f"{name} is {value!r}; expected a finite number {least}{most}")
    return number
