"""Nearest kept position of every position of a mask, with exact distances and random ties."""

from __future__ import annotations

import numpy as np


def nearest_kept(mask: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Computes the flat index ℓ(p) of the kept position nearest to p, by Euclidean distance.

    Squared distances are integers, so ties are exact; each nearest position is equally likely. A
    kept position maps to itself. Time is proportional to H'·W' times the largest distance, in
    vectorised steps.

    Args:
        mask: bool[H', W'], True where a position is kept.
        rng: generator that draws one number per position to break ties.

    Returns:
        int32[H', W'], row-major indices into the mask.

    Raises:
        ValueError: `mask` is not bool[H', W'], or keeps no position.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; expected bool[H', W']"
        )
    if not mask.any():
        raise ValueError(f"mask of shape {mask.shape} keeps no position; expected at least one")
    if mask.size > np.iinfo(np.int32).max:
        raise ValueError(f"mask has {mask.size} positions; expected at most 2**31 - 1")
    above, below = _nearest_rows(mask)
    rows = np.arange(mask.shape[0])[:, None]
    # Larger than the squared distance of any two positions.
    unreachable = sum(size * size for size in mask.shape)
    up = np.where(above < 0, unreachable, (rows - above) ** 2)
    down = np.where(below < 0, unreachable, (rows - below) ** 2)
    # Squared distance to the nearest kept position in the column, and the number of such positions:
    # 2 if one above and one below are equally near.
    vertical = np.minimum(up, down)
    count = np.where(vertical < unreachable, 1 + ((up == down) & (above != below)), 0)

    squares, ties = _nearest_columns(vertical, count, unreachable)
    rank = rng.integers(ties)
    return _nth_nearest(rank, squares, vertical, count, np.where(up <= down, above, below), below)


def _nearest_rows(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row of the nearest kept position at or above, and at or below; −1 if none."""
    height = mask.shape[0]
    rows = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(mask, rows, -1), axis=0)
    below = np.minimum.accumulate(np.where(mask, rows, height)[::-1], axis=0)[::-1]
    return above, np.where(below == height, -1, below)


def _nearest_columns(
    vertical: np.ndarray, count: np.ndarray, unreachable: int
) -> tuple[np.ndarray, np.ndarray]:
    """Computes squared distances to the nearest kept positions and the number of ties."""
    squares = vertical.copy()
    ties = count.copy()
    for offset, here, there in _column_pairs(vertical.shape[1]):
        if offset * offset > squares.max():
            break
        candidate = np.minimum(vertical[:, there] + offset * offset, unreachable)
        best = squares[:, here]
        ties[:, here] = np.where(
            candidate < best,
            count[:, there],
            ties[:, here] + np.where(candidate == best, count[:, there], 0),
        )
        squares[:, here] = np.minimum(candidate, best)
    return squares, ties


def _nth_nearest(rank, squares, vertical, count, first, second) -> np.ndarray:
    """Returns the index of the tied nearest position number `rank`, in order of column offsets."""
    width = vertical.shape[1]
    columns = np.arange(width)
    index = np.zeros(vertical.shape, np.int32)
    remaining = rank.copy()
    pairs = [(0, slice(None), slice(None)), *_column_pairs(width)]
    for offset, here, there in pairs:
        if offset * offset > squares.max():
            break
        nearest = vertical[:, there] + offset * offset == squares[:, here]
        number = np.where(nearest, count[:, there], 0)
        left = remaining[:, here]
        row = np.where(left == 0, first[:, there], second[:, there])
        chosen = (left >= 0) & (left < number)
        index[:, here] = np.where(chosen, row * width + columns[there], index[:, here])
        # `remaining` becomes negative once a position is chosen, and then stays negative.
        remaining[:, here] = np.where(left >= 0, left - number, left)
    return index


def _column_pairs(width: int):
    """Yields (offset, columns, columns shifted by offset) for offsets 1, 2, … to both sides."""
    for offset in range(1, width):
        yield offset, slice(offset, None), slice(None, -offset)
        yield offset, slice(None, -offset), slice(offset, None)
