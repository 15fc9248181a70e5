"""Nearest kept position of every position of a mask: exact distances, random ties."""

from __future__ import annotations

import numpy as np


def nearest_kept(mask: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Flat index ℓ(p) of the kept position nearest to each position p, by Euclidean distance.

    Squared distances are integers, so equal ones are equal exactly; among the nearest each is as
    likely as the others. A kept position is its own neighbour. The cost is H'·W' times the largest
    distance, in whole-array steps.

    Args:
        mask: bool[H', W'], True where a position is kept.
        rng: draws one number per position for the ties; the result depends on nothing else.

    Returns:
        int32[H', W'], row-major indices into the mask.

    Raises:
        ValueError: `mask` is not a bool array of two axes, or keeps nothing.
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
    # Farther than any two positions of the mask.
    unreachable = sum(size * size for size in mask.shape)
    up = np.where(above < 0, unreachable, (rows - above) ** 2)
    down = np.where(below < 0, unreachable, (rows - below) ** 2)
    # Nearest in each column, and how many are equally near: one above and one below, or itself.
    vertical = np.minimum(up, down)
    count = np.where(vertical < unreachable, 1 + ((up == down) & (above != below)), 0)

    squares, ties = _nearest_columns(vertical, count, unreachable)
    turn = rng.integers(ties)
    return _nth_nearest(turn, squares, vertical, count, np.where(up <= down, above, below), below)


def _nearest_rows(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of the nearest kept position in the same column, not below and not above; −1 if none."""
    height = mask.shape[0]
    rows = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(mask, rows, -1), axis=0)
    below = np.minimum.accumulate(np.where(mask, rows, height)[::-1], axis=0)[::-1]
    return above, np.where(below == height, -1, below)


def _nearest_columns(
    vertical: np.ndarray, count: np.ndarray, unreachable: int
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances to the nearest kept positions, and how many of these there are."""
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


def _nth_nearest(turn, squares, vertical, count, first, second) -> np.ndarray:
    """Index of the nearest position number `turn`, in the order in which columns are visited."""
    width = vertical.shape[1]
    columns = np.arange(width)
    index = np.zeros(vertical.shape, np.int32)
    turn = turn.copy()
    pairs = [(0, slice(None), slice(None)), *_column_pairs(width)]
    for offset, here, there in pairs:
        if offset * offset > squares.max():
            break
        nearest = vertical[:, there] + offset * offset == squares[:, here]
        number = np.where(nearest, count[:, there], 0)
        left = turn[:, here]
        row = np.where(left == 0, first[:, there], second[:, there])
        chosen = (left >= 0) & (left < number)
        index[:, here] = np.where(chosen, row * width + columns[there], index[:, here])
        # Once chosen, a position's turn is negative and stays so.
        turn[:, here] = np.where(left >= 0, left - number, left)
    return index


def _column_pairs(width: int):
    """Offsets 1, 2, … with slices of the columns that have a neighbour there, left and right."""
    for offset in range(1, width):
        yield offset, slice(offset, None), slice(None, -offset)
        yield offset, slice(None, -offset), slice(offset, None)
