"""Number of windows of the next pooling layer that read each position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax import lax
from jaxtyping import Int

from adaptive_nets.perforation.arguments import check_pair
from adaptive_nets.runtime.errors import UserError

Padding = str | Sequence[tuple[int, int]]


def pooling_counts(
    shape: tuple[int, int], window: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> Int[np.ndarray, "H W"]:
    """Counts A(x, y), the number of pooling windows that contain each position [figurnov2016].

    Windows are clipped at the border; an axis has floor((size + pads − window) / stride) + 1.

    Args:
        shape: (H', W') of the pooled map.
        window: (height, width).
        strides: (vertical, horizontal).
        padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    Returns:
        int64[H', W']; for a 3x3 window with strides 2 the values are 1, 2 and 4.

    Raises:
        UserError: an argument is invalid, or the window does not fit.
    """
    shape = check_pair("shape", shape)
    window = check_pair("window", window)
    strides = check_pair("strides", strides)
    pads = _padding_pairs(padding, shape, window, strides)
    rows, columns = (_axis_counts(*axis) for axis in zip(shape, window, strides, pads, strict=True))
    return rows[:, None] * columns[None, :]


def _axis_counts(size: int, window: int, stride: int, pads: tuple[int, int]) -> np.ndarray:
    before, after = pads
    windows = (size + before + after - window) // stride + 1
    if windows < 1:
        raise UserError(
            f"window is {window} on an axis of {size} with padding {pads}; expected a window that "
            "fits at least once"
        )
    starts = np.arange(windows) * stride - before
    positions = np.arange(size)[:, None]
    return ((positions >= starts) & (positions < starts + window)).sum(axis=1)


def _padding_pairs(
    padding: Padding, shape: tuple[int, int], window: tuple[int, int], strides: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise UserError(
                f'padding is {padding!r}; expected "SAME", "VALID" or ((top, bottom), (left, '
                "right))"
            )
        vertical, horizontal = lax.padtype_to_pads(shape, window, strides, padding.upper())
        return check_pair("padding", vertical, smallest=0), check_pair(
            "padding", horizontal, smallest=0
        )
    try:
        vertical, horizontal = padding
    except (TypeError, ValueError):
        raise UserError(
            f"padding is {padding!r}; expected ((top, bottom), (left, right))"
        ) from None
    return check_pair("vertical padding", vertical, smallest=0), check_pair(
        "horizontal padding", horizontal, smallest=0
    )
