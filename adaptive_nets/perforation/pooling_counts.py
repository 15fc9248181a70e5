"""Number of windows of the next pooling layer that read each position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from adaptive_nets.perforation.arguments import check_pair
from adaptive_nets.runtime.errors import UserError
from kernels._common.geometry import Padding, explicit_padding, pair


def pooling_counts(
    shape: tuple[int, int],
    window: int | Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
) -> Int[np.ndarray, "H W"]:
    """Counts A(x, y), the number of pooling windows that contain each position [figurnov2016].

    Windows are clipped at the border; an axis has floor((size + pads − window) / stride) + 1.

    Args:
        shape: (H', W') of the pooled map.
        window: (height, width), or one number for both.
        strides: (vertical, horizontal), or one number for both.
        padding: "SAME", "VALID", ((top, bottom), (left, right)), or one number for all sides.

    Returns:
        int64[H', W']; for a 3x3 window with strides 2 the values are 1, 2 and 4.

    Raises:
        UserError: an argument is invalid, or the window does not fit.
    """
    shape = check_pair("shape", shape)
    try:
        window, strides = pair("window", window), pair("strides", strides)
        pads = explicit_padding(padding, shape, window, strides)
    except ValueError as error:
        raise UserError(str(error)) from None
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
