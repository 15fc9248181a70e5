"""Binary fixation maps from blurred ones."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.saliency.arguments import as_density, as_number

Rule = Literal["drawn", "top", "peaks"]
"""Rules of `fixations_from_density`."""


def fixations_from_density(
    density: Float[Any, "H W"],
    *,
    rule: Rule = "drawn",
    count: int = 100,
    share: float = 0.05,
    radius: int = 10,
    seed: int = 0,
) -> Bool[np.ndarray, "H W"]:
    """Derives a binary fixation map from a blurred one, for measures that need single fixations.

    The fixations that were blurred cannot be recovered. Of the three rules, "drawn" is the nearest
    to the measures of real fixations: its expected AUC is that of fixations that are displaced by
    the blur. "top" marks regions, whose AUC is higher for maps that agree with the largest peak and
    lower for others; "peaks" has one point for many fixations at the same place.

    Args:
        density: float[H, W], non-negative, on any scale.
        rule: "drawn" draws `count` pixels without replacement, in proportion to the density; "top"
            takes the share of the pixels with the largest density, earlier rows first among equal
            ones; "peaks" takes the pixels that are the largest within `radius` rows and columns.
        count: number of pixels of "drawn"; all pixels of positive density if there are fewer.
        share: share of the pixels of "top", at least one pixel.
        radius: half of the window of "peaks", pixels.
        seed: seed of "drawn".

    Raises:
        UserError: the density is none, or an argument is out of range.
    """
    values = as_density("density", density)
    if rule not in get_args(Rule):
        raise UserError(f"rule is {rule!r}; {did_you_mean(str(rule), get_args(Rule))}")
    count = as_integer("count", count, at_least=1)
    share = as_number("share", share, high=1.0, open_low=True)
    radius = as_integer("radius", radius, at_least=1)
    rng = np.random.default_rng(as_integer("seed", seed, at_least=0))
    if rule == "peaks":
        largest = ndimage.maximum_filter(values, size=2 * radius + 1, mode="nearest")
        return (values == largest) & (values > 0)
    flat = values.ravel()
    if rule == "drawn":
        positive = np.flatnonzero(flat)
        number = min(count, positive.size)
        chosen = rng.choice(positive, number, replace=False, p=flat[positive] / flat.sum())
    else:
        chosen = np.argsort(-flat, kind="stable")[: max(1, round(share * flat.size))]
    fixated = np.zeros(flat.size, np.bool_)
    fixated[chosen] = True
    return fixated.reshape(values.shape)
