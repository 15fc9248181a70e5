"""Similarity of a saliency map to fixations, and to a density of fixations.

Definitions: Z. Bylinskii, T. Judd, A. Oliva, A. Torralba, F. Durand, "What do different evaluation
metrics tell us about saliency models?", IEEE TPAMI 2019 [bylinskii2018].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from adaptive_nets.saliency.arguments import as_density, as_fixations, as_map, check_shape
from adaptive_nets.saliency.maps import unit_scaled

EPSILON = 2.0**-52
"""Regularisation of the Kullback-Leibler divergence, the value of the MIT saliency benchmark."""


def nss(saliency: Float[Any, "H W"], fixations: Bool[Any, "H W"]) -> float:
    """Computes the normalised scanpath saliency: the mean standardised saliency at fixations.

    Args:
        saliency: float[H, W], any finite numbers; standardised by its mean and deviation over all
            pixels.
        fixations: bool[H, W], True at fixated pixels.

    Returns:
        Standard deviations above the mean; 0 is chance, and the value of a constant map.

    Raises:
        UserError: the sizes differ, or there is no fixation.
    """
    values = as_map("saliency", saliency)
    fixated = as_fixations(fixations, values.shape)
    values = unit_scaled(values)
    if not values.any():
        return 0.0
    return float((values[fixated].mean() - values.mean()) / values.std())


def cc(saliency: Float[Any, "H W"], density: Float[Any, "H W"]) -> float:
    """Computes the linear correlation coefficient of two maps over pixels.

    Args:
        saliency: float[H, W], any finite numbers.
        density: float[H, W], density of human fixations, on any scale.

    Returns:
        The coefficient, from −1 to 1; 0 if a map is constant.

    Raises:
        UserError: the sizes differ, or a value is not finite.
    """
    first, second = as_map("saliency", saliency), as_map("density", density)
    check_shape("density", second, first.shape)
    # Scaled, so that squares of large and small numbers are finite and above 0.
    first, second = unit_scaled(first), unit_scaled(second)
    if not (first.any() and second.any()):
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.clip(np.sum(first * second) / norms, -1, 1))


def sim(saliency: Float[Any, "H W"], density: Float[Any, "H W"]) -> float:
    """Computes the similarity, the sum over pixels of the smaller value of two distributions.

    Args:
        saliency: float[H, W], non-negative; divided by its sum. `unit_scaled` first makes the least
            salient pixel 0, as the MIT saliency benchmark does.
        density: float[H, W], non-negative; divided by its sum.

    Returns:
        From 0 for distributions without common pixels to 1 for equal ones.

    Raises:
        UserError: the sizes differ, a value is negative or not finite, or a map is 0 everywhere.
    """
    first, second = as_density("saliency", saliency), as_density("density", density)
    check_shape("density", second, first.shape)
    return float(np.minimum(first, second).sum())


def kl(saliency: Float[Any, "H W"], density: Float[Any, "H W"]) -> float:
    """Computes the Kullback-Leibler divergence of the saliency from the density, nats.

    KL(P, Q) = Σ Q·log(ε + Q / (ε + P)), where P is the saliency and Q the density, and ε is
    `EPSILON`.

    Args:
        saliency: float[H, W], non-negative; divided by its sum.
        density: float[H, W], non-negative; divided by its sum.

    Returns:
        0 for equal distributions, up to ε; larger is worse.

    Raises:
        UserError: the sizes differ, a value is negative or not finite, or a map is 0 everywhere.
    """
    first, second = as_density("saliency", saliency), as_density("density", density)
    check_shape("density", second, first.shape)
    return float(np.sum(second * np.log(EPSILON + second / (EPSILON + first))))
