"""Areas under ROC curves of a saliency map as a classifier of fixated pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.saliency.arguments import (
    as_fixations,
    as_map,
    as_number,
    check_shape,
)
from adaptive_nets.saliency.maps import unit_scaled

JITTER = 1e-7
"""Largest random number that separates pixels of equal saliency."""


def auc_judd(
    saliency: Float[Any, "H W"],
    fixations: Bool[Any, "H W"],
    *,
    jitter: float = JITTER,
    seed: int = 0,
) -> float:
    """Computes AUC-Judd, the area under the ROC curve at the thresholds of the fixations.

    The map is scaled to [0, 1], and tiny random numbers separate equal pixels. The saliency of each
    fixation is a threshold: the true positive rate is the share of fixations at or above it, the
    false positive rate the share of non-fixated pixels at or above it. (0, 0) and (1, 1) are added,
    and the area is a sum of trapezoids [judd2012; bylinskii2018].

    A constant map has no order that random numbers could restore, and none are added: its area is
    1/2 exactly. Without equal values the area exceeds the share of (fixated, non-fixated) pairs in
    the right order by f / (2·F), where f is the false positive rate at the lowest of F fixations,
    because the first trapezoid rises from (0, 0). The areas of a map and of its negative therefore
    sum to slightly more than 1 if there are few fixations.

    Args:
        saliency: float[H, W], any finite numbers; a larger one is more salient.
        fixations: bool[H, W], True at fixated pixels. `resized` brings a map to its size.
        jitter: upper end of the uniform random numbers; 0 for none.
        seed: seed of the random numbers.

    Returns:
        The area, from 0 to 1; 1 if all fixated pixels are more salient than all others.

    Raises:
        UserError: the sizes differ, there is no fixation, all pixels are fixated, or a value is not
            finite.
    """
    values = as_map("saliency", saliency)
    fixated = as_fixations(fixations, values.shape)
    if fixated.all():
        raise UserError("fixations are True everywhere; expected at least one non-fixated pixel")
    jitter, seed = as_number("jitter", jitter), as_integer("seed", seed, at_least=0)
    values = unit_scaled(values)
    if jitter and values.any():
        values = values + np.random.default_rng(seed).uniform(0, jitter, values.shape)
    thresholds = np.sort(values[fixated])
    count = thresholds.size
    # The number of thresholds that each other pixel reaches, counted over the pixels.
    reached = np.searchsorted(thresholds, values[~fixated], side="right")
    pixels = np.bincount(reached, minlength=count + 1)
    false = (pixels.sum() - np.cumsum(pixels)[:count]) / pixels.sum()
    true = (count - np.searchsorted(thresholds, thresholds, side="left")) / count
    # From the lowest threshold to the highest.
    x = np.concatenate([[1.0], false, [0.0]])
    y = np.concatenate([[1.0], true, [0.0]])
    return float(-np.trapezoid(y, x))


def auc_shuffled(
    saliency: Float[Any, "H W"], fixations: Bool[Any, "H W"], others: Float[Any, "H W"]
) -> float:
    """Computes the shuffled AUC, whose negatives are fixations of other images [zhang2008].

    A centre bias is in the fixations of all images, so it gains nothing: the centre baseline has
    about 1/2. The area is the share of pairs (a fixation of this image, one of another) in which
    this image's is more salient, equal ones counted half: the limit of infinitely many random
    choices of negatives, at all thresholds [bylinskii2018].

    Args:
        saliency: float[H, W], any finite numbers.
        fixations: bool[H, W], True at fixated pixels of this image.
        others: float[H, W], number of fixations of other images at each pixel, 0 or more.

    Raises:
        UserError: the sizes differ, or there is no fixation here or in other images.
    """
    values = as_map("saliency", saliency)
    fixated = as_fixations(fixations, values.shape)
    numbers = as_map("others", others)
    check_shape("others", numbers, values.shape)
    if numbers.min() < 0 or numbers.sum() <= 0:
        raise UserError("others is negative or 0 everywhere; expected fixations of other images")
    used = fixated | (numbers > 0)
    levels, level_of = np.unique(values[used], return_inverse=True)
    positive = np.bincount(level_of, fixated[used].astype(np.float64), levels.size)
    negative = np.bincount(level_of, numbers[used], levels.size)
    below = np.cumsum(negative) - negative
    area = np.sum(positive * (below + negative / 2))
    return float(area / (positive.sum() * negative.sum()))
