"""What an impact map looks like, in two numbers: its bias to the centre, and the pooling grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from adaptive_nets.runtime.errors import UserError


def centre_bias(impact: Float[np.ndarray, "H W"]) -> float:
    """Mean impact in the central half of each axis, over that of the whole map; 1 without a bias.

    Args:
        impact: float[H', W'], not negative, with a positive sum.

    Raises:
        UserError: it is not two-dimensional, or has no impact anywhere.
    """
    impact = np.asarray(impact, np.float64)
    if impact.ndim != 2 or not impact.sum() > 0:
        raise UserError(f"impact has shape {impact.shape}; expected [H', W'] with a positive sum")
    rows, columns = (slice(size // 4, size - size // 4) for size in impact.shape)
    return float(impact[rows, columns].mean() / impact.mean())


def pooling_correlation(
    impact: Float[np.ndarray, "H W"], counts: Int[np.ndarray, "H W"]
) -> float | None:
    """Correlation of impacts with how many pooling windows read each position.

    Both are taken relative to their mean over the 5x5 neighbourhood, so that what is left is the
    grid and not the bias to the centre or the border.

    Args:
        impact: float[H', W'].
        counts: int[H', W'], from `pooling_counts`.

    Returns:
        Pearson's coefficient, None where one of both does not vary.

    Raises:
        UserError: the shapes differ.
    """
    if np.shape(impact) != np.shape(counts):
        raise UserError(
            f"counts has shape {np.shape(counts)}; expected {np.shape(impact)}, as impact"
        )
    first, second = (_relative(np.asarray(a, np.float64)) for a in (impact, counts))
    if first.std() < 1e-12 or second.std() < 1e-12:
        return None
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _relative(values: np.ndarray) -> np.ndarray:
    """Values over the mean of the positions at most two rows and columns away, minus 1."""

    def boxes(array: np.ndarray) -> np.ndarray:
        padded = np.pad(array, 2)
        return np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).sum(axis=(2, 3))

    means = boxes(values) / boxes(np.ones_like(values))
    return np.divide(values, means, out=np.ones_like(values), where=means > 0) - 1
