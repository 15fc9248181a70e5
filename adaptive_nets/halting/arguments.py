"""What the functions of this room are given, checked; traced values pass unchecked."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError


def check_number(name: str, value: Any, *, below: float | None = None) -> None:
    """Refuses a number that is not above zero, or not under `below`."""
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


def as_units(name: str, array: Any) -> Float[Array, "..."]:
    """The array [..., L] in float32 or wider, or a UserError that names it.

    Sums and products over units saturate in half precision.
    """
    array = jnp.asarray(array)
    if array.ndim < 1 or array.shape[-1] < 1:
        raise UserError(f"{name} has shape {array.shape}; expected [..., L] with L units, L >= 1")
    return as_floating(name, array)


def as_floating(name: str, array: Any) -> Float[Array, "..."]:
    """The array in float32 or wider, or a UserError that names it."""
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} has dtype {array.dtype}; expected a floating one")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
