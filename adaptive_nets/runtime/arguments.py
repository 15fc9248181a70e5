"""Checks of arguments that several rooms share."""

from __future__ import annotations

import operator
from typing import Any

from adaptive_nets.runtime.errors import UserError


def as_integer(name: str, value: Any, *, at_least: int = 1) -> int:
    """Returns an integer of at least `at_least`.

    Raises:
        UserError: the value is no such integer; the message names it.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = at_least - 1
    if number < at_least:
        raise UserError(f"{name} is {value!r}; expected an integer of at least {at_least}")
    return number
