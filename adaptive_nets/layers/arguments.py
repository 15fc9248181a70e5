"""Argument checks of the layers' pure functions."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from adaptive_nets.runtime.errors import UserError
from kernels._common import arrays, geometry


def as_array(name: str, value: Any, *, ndim: int | None = None, axes: str = "an array") -> Array:
    """Converts a NumPy, JAX or traced array to a JAX array; dtypes are canonicalised.

    Args:
        name: name of the argument.
        value: the argument.
        ndim: required number of axes, or None.
        axes: their names, for the message.

    Raises:
        UserError: the value is no array of numbers, or has other axes; the message names it.
    """
    try:
        array = arrays.as_array(name, value, axes)
    except ValueError as error:
        raise UserError(str(error)) from None
    if ndim is not None and array.ndim != ndim:
        raise UserError(f"{name} has shape {array.shape}; expected {axes}")
    return array


def as_pair(name: str, value: Any) -> tuple[int, int]:
    """Converts two positive integers, or one for both axes, to a tuple of ints.

    Raises:
        UserError: the value is no such pair; the message names it.
    """
    try:
        return geometry.pair(name, value)
    except ValueError as error:
        raise UserError(str(error)) from None
