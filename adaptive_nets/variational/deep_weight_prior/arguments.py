"""Argument checks of this package; traced values pass unchecked."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError

LEAST_VARIANCE = 1e-12
"""Smallest variance that is accepted: the gradient of a log-density divides by its square, which
must not underflow in float32."""


def as_floats(name: str, value: Any, *, ndim: int, axes: str) -> Float[Array, "..."]:
    """Converts an array of real numbers to float32 or wider.

    Args:
        name: name of the argument.
        value: the argument.
        ndim: required number of axes.
        axes: their names, for the message.

    Raises:
        UserError: the value is no array of real numbers, or has other axes; the message names it.
    """
    try:
        array = jnp.asarray(value)
        array = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    except (TypeError, ValueError):
        raise UserError(f"{name} is {value!r}; expected an array of numbers") from None
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} has dtype {array.dtype}; expected real numbers")
    if array.ndim != ndim:
        raise UserError(f"{name} has shape {array.shape}; expected {axes}")
    return array


def check_floor(value: Any) -> float:
    """Returns the floor of a variance as a float.

    Raises:
        UserError: it is not finite or below `LEAST_VARIANCE`, so that a variance could underflow.
    """
    number = float(value) if isinstance(value, (int, float, np.number)) else math.nan
    if not LEAST_VARIANCE <= number < math.inf:
        raise UserError(
            f"floor is {value!r}; expected at least {LEAST_VARIANCE:g}, below which a variance "
            "underflows in float32"
        )
    return number


def check_log_variance(name: str, value: Array) -> None:
    """Checks that every variance exp(log_variance) is a positive finite number; traced values pass.

    Raises:
        UserError: a variance underflows or is not finite; the message has the log variance.
    """
    if isinstance(value, Tracer) or not value.is_fully_addressable or value.size == 0:
        return
    # NumPy, since JAX would trace the minimum of a constant within `jit`.
    values = np.asarray(value)
    limits = jnp.finfo(value.dtype)
    least, most = math.log(limits.tiny), math.log(limits.max)
    for extreme in (float(values.min()), float(values.max())):
        if not least <= extreme <= most:
            fault = "underflows" if extreme < least else "is not finite"
            raise UserError(
                f"{name} holds {extreme:.4g}, so a variance {fault} in {value.dtype}; expected "
                f"{least:.1f} to {most:.1f}"
            )


def check_slices(slices: Any, kernel_size: tuple[int, int]) -> Float[Array, "N h w"]:
    """Converts slices of kernels to float32[N, h, w] or wider.

    Raises:
        UserError: they are not of the prior's kernel size.
    """
    array = as_floats("slices", slices, ndim=3, axes="[N, h, w]")
    check_kernel_size(array.shape[1:], kernel_size, name="slices")
    return array


def check_kernel_size(
    found: tuple[int, ...], kernel_size: tuple[int, int], *, name: str, hint: str = ""
) -> None:
    """Checks that slices have the kernel size of a prior.

    Raises:
        UserError: they have another one.
    """
    if tuple(found) != tuple(kernel_size):
        sizes = ["x".join(map(str, size)) for size in (found, kernel_size)]
        raise UserError(f"{name} has {sizes[0]} slices; expected {sizes[1]}, as the prior{hint}")
