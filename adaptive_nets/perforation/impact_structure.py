"""Summary statistics of an impact map: centre bias and correlation with the pooling grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from adaptive_nets.runtime.errors import UserError


def centre_bias(impact: Float[np.ndarray, "H W"]) -> float:
    """Computes the mean impact in the central half of each axis divided by the overall mean.

    The value is 1 for an unbiased map.

    Args:
        impact: float[H', W'], non-negative, with a positive sum.

    Raises:
        UserError: the map is not two-dimensional, or its sum is not positive.
    """
    impact = np.asarray(impact, np.float64)
    if impact.ndim != 2 or not impact.sum() > 0:
        raise UserError(f"impact has shape {impact.shape}; expected [H', W'] with a positive sum")
    rows, columns = (slice(size // 4, size - size // 4) for size in impact.shape)
    return float(impact[rows, columns].mean() / impact.mean())


def pooling_correlation(
    impact: Float[np.ndarray, "H W"], counts: Int[np.ndarray, "H W"]
) -> float | None:
    """Computes the correlation of impacts with the number of pooling windows per position.

    Both are divided by their mean over the 5x5 neighbourhood, which removes centre bias and border
    effects and leaves the grid.

    Args:
        impact: float[H', W'].
        counts: int[H', W'], from `pooling_counts`.

    Returns:
        Pearson's coefficient, or None if either is constant.

    Raises:
        UserError: the shapes differ.
    """
    if np.shape(impact) != np.shape(counts):
        raise UserError(
            f"counts has shape {np.shape(counts)}; expected {np.shape(impact)}, the shape of impact"
        )
    first, second = (_relative(np.asarray(a, np.float64)) for a in (impact, counts))
    if first.std() < 1e-12 or second.std() < 1e-12:
        return None
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _relative(values: np.ndarray) -> np.ndarray:
    """Divides values by their mean over the 5x5 neighbourhood and subtracts 1."""

    def box_sums(array: np.ndarray) -> np.ndarray:
        padded = np.pad(array, 2)
        return np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).sum(axis=(2, 3))

    means = box_sums(values) / box_sums(np.ones_like(values))
    return np.divide(values, means, out=np.ones_like(values), where=means > 0) - 1
