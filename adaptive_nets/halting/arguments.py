"""Argument checks of this package; traced values pass unchecked."""

from __future__ import annotations

import operator
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError


def check_number(name: str, value: Any, *, below: float | None = None) -> None:
    """Checks that a number is above 0 and, if given, less than `below`.

    Raises:
        UserError: it is not; the message names the argument.
    """
    if isinstance(value, Tracer):
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    upper = float("inf") if below is None else below
    if not 0 < number < upper:
        expected = "a finite number above 0" if below is None else f"a number in (0, {below:g})"
        raise UserError(f"{name} is {value!r}; expected {expected}")


def check_positive_integer(name: str, value: Any) -> int:
    """Returns a positive integer as an int.

    Raises:
        UserError: the value is not a positive integer; the message names the argument.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise UserError(f"{name} is {value!r}; expected a positive integer")
    return number


def as_array(name: str, value: Any, *, ndim: int | None = None, axes: str = "") -> Array:
    """Converts an array of NumPy, JAX or Python numbers to a JAX array; dtypes are canonicalised.

    Args:
        name: name of the argument.
        value: the argument.
        ndim: required number of axes, or None.
        axes: their names, for the message.

    Raises:
        UserError: the value is no array of numbers, or has other axes; the message names it.
    """
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {value!r}; expected an array of numbers") from None
    if ndim is not None and array.ndim != ndim:
        raise UserError(f"{name} has shape {array.shape}; expected {axes}")
    return array


def as_arrays(name: str, values: Any) -> list[Array]:
    """Converts each entry of a sequence by `as_array`.

    Raises:
        UserError: an entry is no array; the message names it.
    """
    return [as_array(f"{name}[{i}]", value) for i, value in enumerate(values)]


def with_unit_axis(name: str, array: Any) -> Array:
    """Returns the input as an array whose last axis has L >= 1 units.

    Raises:
        UserError: there is no such axis; the message names the argument.
    """
    array = as_array(name, array)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise UserError(f"{name} has shape {array.shape}; expected [..., L] with L units, L >= 1")
    return array


def as_units(name: str, array: Any) -> Float[Array, "... L"]:
    """Casts an array float[..., L] to float32 or wider.

    Sums and products over units saturate in half precision.

    Raises:
        UserError: the array is not float[..., L]; the message names it.
    """
    return as_floating(name, with_unit_axis(name, array))


def as_floating(name: str, array: Any) -> Float[Array, "..."]:
    """Casts a floating-point array to float32 or wider.

    Raises:
        UserError: the dtype is not floating-point; the message names the array.
    """
    array = as_array(name, array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} has dtype {array.dtype}; expected a floating-point dtype")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
