"""Deep ensemble equivalents (DEE): scores as sizes of deep ensembles [ashukha2020, sec. 5]."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from adaptive_nets.ensembling.arguments import as_real
from adaptive_nets.runtime.errors import UserError


def deep_ensemble_equivalent(
    scores: Float[Any, " M"], reference: Float[Any, " L"], *, forward_only: bool = False
) -> Float[np.ndarray, " M"]:
    """Computes DEE = min{l ≥ 1 : reference(l) ≥ score}, with linear interpolation between sizes.

    Scores below the first one of the reference have the equivalent 1, and those above all of them
    have L, the largest size.

    Args:
        scores: float[M], such as calibrated log-likelihoods; higher is better.
        reference: float[L], mean scores of deep ensembles of 1 to L members, of the same network,
            data and augmentation.
        forward_only: the equivalent does not fall from one score to the next, as in the authors'
            code; the scores are then those of growing numbers of samples.

    Returns:
        float64[M], from 1 to L.

    Raises:
        UserError: an empty reference, other axes, or numbers that are not finite.
    """
    scores = _finite("scores", scores, "[M]")
    reference = _finite("reference", reference, "[L], scores of ensembles of 1 to L members")
    if not reference.size:
        raise UserError("reference is empty; expected the scores of ensembles of 1 to L members")
    # The first size that reaches a score is where the running maximum does.
    reached = np.maximum.accumulate(reference)
    after = np.searchsorted(reached, scores, side="left")
    sizes = np.full(scores.shape, float(reference.size))
    sizes[after == 0] = 1.0
    between = (after > 0) & (after < reference.size)
    low, high = reference[after[between] - 1], reference[after[between]]
    sizes[between] = after[between] + (scores[between] - low) / (high - low)
    return np.maximum.accumulate(sizes) if forward_only and sizes.size else sizes


class EquivalentBounds(NamedTuple):
    """Deep ensemble equivalents with their bounds.

    Attributes:
        mean: float64[M], of the mean reference.
        lower: float64[M], of the mean plus a standard deviation.
        upper: float64[M], of the mean minus a standard deviation.
    """

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def equivalent_bounds(
    scores: Float[Any, " M"], reference: Float[Any, " L"], deviation: Float[Any, " L"]
) -> EquivalentBounds:
    """Computes equivalents of the mean reference and of the mean ∓ a standard deviation.

    Args:
        scores: float[M].
        reference: float[L], mean scores of deep ensembles.
        deviation: float[L], standard deviations of these scores, at least 0.

    Raises:
        UserError: shapes that differ, or a negative deviation.
    """
    reference = _finite("reference", reference, "[L]")
    deviation = _finite("deviation", deviation, "[L]")
    if deviation.shape != reference.shape or (deviation < 0).any():
        raise UserError(
            f"deviation has shape {deviation.shape} and least value "
            f"{deviation.min(initial=0):.4g}; expected {reference.shape} and values of at least 0"
        )
    return EquivalentBounds(
        *(deep_ensemble_equivalent(scores, reference + sign * deviation) for sign in (0, 1, -1))
    )


def _finite(name: str, value: Any, axes: str) -> np.ndarray:
    array = as_real(name, value, ndim=1, axes=axes)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds infinite numbers; expected finite ones")
    return array
