"""Search for numbers that are not finite."""

from __future__ import annotations

import numpy as np


def first_not_finite(values: np.ndarray) -> str | None:
    """Describes the first number that is not finite, such as ``"nan at [0, 3]"``.

    Args:
        values: array of any shape and dtype.

    Returns:
        The description; None if all are finite.
    """
    if values.dtype.kind in "iub" or values.size == 0:
        return None
    finite = np.isfinite(values)
    if finite.all():
        return None
    place = np.unravel_index(np.argmin(finite), values.shape)
    where = f" at [{', '.join(map(str, place))}]" if place else ""
    return f"{values[place].item()}{where}"
