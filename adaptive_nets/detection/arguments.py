"""Argument checks of this package; traced values pass unchecked."""

from __future__ import annotations

import operator
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from adaptive_nets.halting.arguments import as_array
from adaptive_nets.runtime.errors import UserError


def as_boxes(name: str, value: Any) -> Float[Array, "R 4"]:
    """Converts boxes (y1, x1, y2, x2) to an array of float32 or wider.

    Raises:
        UserError: they are not numbers of shape [R, 4]; the message names them.
    """
    array = as_array(name, value)
    if array.ndim != 2 or array.shape[1] != 4:
        raise UserError(
            f"{name} has shape {array.shape}; expected [R, 4], boxes (y1, x1, y2, x2) in pixels"
        )
    return as_float(name, array)


def as_float(name: str, array: Array) -> Array:
    """Casts an array of real numbers to float32 or wider.

    Raises:
        UserError: the dtype is boolean or complex; the message names the array.
    """
    real = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    if not real:
        raise UserError(f"{name} has dtype {array.dtype}; expected real numbers")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def check_share(name: str, value: Any) -> None:
    """Checks that a number is between 0 and 1, both included.

    Raises:
        UserError: it is not; the message names it.
    """
    if isinstance(value, Tracer):
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise UserError(f"{name} is {value!r}; expected a number from 0 to 1")


def check_sizes(name: str, values: Any) -> tuple[float, ...]:
    """Returns a non-empty sequence of finite numbers above 0 as a tuple.

    Raises:
        UserError: it is something else; the message names it.
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise UserError(f"{name} is {values!r}; expected one or more finite numbers above 0")
    return numbers


def as_pair(name: str, value: Any) -> tuple[int, int]:
    """Returns a positive integer, or two, as a pair.

    Raises:
        UserError: the value is neither; the message names it.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    try:
        numbers = tuple(operator.index(number) for number in pair)
    except TypeError:
        numbers = ()
    if len(numbers) != 2 or min(numbers) < 1:
        raise UserError(f"{name} is {value!r}; expected a positive integer, or two")
    return numbers[0], numbers[1]
