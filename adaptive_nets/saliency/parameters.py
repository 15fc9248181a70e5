"""Choice of the two parameters of a saliency map on one half of the images.

The scores of all images at all candidates are computed once; each half then selects its candidate
by the mean over its images, and the other half reports the score there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.saliency.arguments import as_map, as_number, as_size
from adaptive_nets.saliency.auc import auc_judd
from adaptive_nets.saliency.maps import (
    CENTRE_WIDTH,
    blurred,
    centre_baseline,
    resized,
    unit_scaled,
)

Score = Callable[[np.ndarray, np.ndarray], float]
"""(saliency f[H, W], fixations bool[H, W]) -> score, larger is better."""


def score_grid(
    ponder: Float[Any, "H W"],
    fixations: Bool[Any, "H2 W2"],
    *,
    sigmas: Sequence[float],
    centre_weights: Sequence[float],
    centre_width: float = CENTRE_WIDTH,
    score: Score = auc_judd,
) -> Float64[np.ndarray, "S W"]:
    """Scores the saliency maps of one image at every candidate of both parameters.

    Each entry is the score of `smoothed_map`, brought to the size of the fixation map by `resized`.

    Args:
        ponder: float[H, W], ponder map.
        fixations: bool[H2, W2], fixation map.
        sigmas: S candidates of the blur, as shares of the longer side of the ponder map, so that
            they mean the same for images of several sizes.
        centre_weights: W candidates of the weight of the centre bias.
        centre_width: standard deviations of the centre bias as a share of H and of W.
        score: score to maximise.

    Returns:
        float64[S, W].

    Raises:
        UserError: there is no candidate, one is out of range, or `score` refuses the maps.
    """
    values = as_map("ponder", ponder)
    shares = [as_number("sigmas", sigma) for sigma in sigmas]
    weights = [as_number("centre_weights", weight) for weight in centre_weights]
    if not shares or not weights:
        raise UserError("sigmas or centre_weights is empty; expected at least one candidate each")
    size = as_size(np.shape(fixations))
    centre = centre_baseline(values.shape, width=centre_width)  # pyright: ignore
    # The resize is linear: both terms are resized once.
    centre = resized(centre, size)
    scores = np.empty((len(shares), len(weights)))
    for i, share in enumerate(shares):
        smooth = unit_scaled(blurred(values, sigma=share * max(values.shape)))
        smooth = resized(smooth, size)
        for j, weight in enumerate(weights):
            scores[i, j] = score(smooth + weight * centre, np.asarray(fixations))
    return scores


@dataclasses.dataclass(frozen=True)
class Choice:
    """Candidates that one half of the images selects, and the scores of the other half.

    Attributes:
        sigma: index of the selected blur.
        centre_weight: index of the selected weight of the centre bias.
        chosen_on: mean score of the half that selects.
        scores: float64[M], scores of the images of the other half, in their order.
    """

    sigma: int
    centre_weight: int
    chosen_on: float
    scores: Float64[np.ndarray, "M"]

    @property
    def mean(self) -> float:
        """Mean score of the half that reports."""
        return float(self.scores.mean())


def choose_parameters(scores: Float[Any, "N S W"], selecting: Bool[Any, "N"]) -> Choice:
    """Selects the candidates of the best mean score on one half; the other half reports.

    Args:
        scores: float[N, S, W], scores of N images, see `score_grid`.
        selecting: bool[N], True for the images that select.

    Returns:
        The first of the best candidates, and the other half's scores there.

    Raises:
        UserError: the shapes differ, a score is not finite, or a half is empty.
    """
    grid, chosen = np.asarray(scores, np.float64), np.asarray(selecting)
    if grid.ndim != 3 or 0 in grid.shape:
        raise UserError(f"scores have shape {grid.shape}; expected [N, S, W], no axis of length 0")
    if not np.isfinite(grid).all():
        raise UserError("scores hold numbers that are not finite; expected finite scores")
    if chosen.shape != grid.shape[:1] or chosen.dtype != np.bool_:
        raise UserError(
            f"selecting is {chosen.dtype}{list(chosen.shape)}; expected bool[{len(grid)}], one for "
            "each image"
        )
    if chosen.all() or not chosen.any():
        raise UserError(
            f"selecting has {chosen.sum()} of {chosen.size} images; expected two halves"
        )
    means = grid[chosen].mean(axis=0)
    i, j = np.unravel_index(int(np.argmax(means)), means.shape)
    return Choice(int(i), int(j), float(means[i, j]), grid[~chosen, i, j])


def random_halves(count: int, *, repeats: int = 5, seed: int = 0) -> Bool[np.ndarray, "R N"]:
    """Divides N images at random into a half that selects and one that reports, several times.

    Args:
        count: number N of images, at least 2.
        repeats: number R of divisions.
        seed: seed of the divisions; division i of a seed does not depend on `repeats`.

    Returns:
        bool[R, N], True for the ⌊N/2⌋ images that select.

    Raises:
        UserError: a number is out of range.
    """
    count = as_integer("count", count, at_least=2)
    repeats = as_integer("repeats", repeats, at_least=1)
    rng = np.random.default_rng(as_integer("seed", seed, at_least=0))
    halves = np.zeros((repeats, count), np.bool_)
    for row in halves:
        row[rng.permutation(count)[: count // 2]] = True
    return halves


def first_halves(groups: Sequence[str]) -> Bool[np.ndarray, "1 N"]:
    """Divides images by category: the first half of each selects, the others report.

    Args:
        groups: category of each of the N images, in order.

    Returns:
        bool[1, N], True for the first ⌊n/2⌋ of the n images of each category.

    Raises:
        UserError: no category has two images.
    """
    halves = np.zeros((1, len(groups)), np.bool_)
    for name in dict.fromkeys(groups):
        rows = [i for i, group in enumerate(groups) if group == name]
        halves[0, rows[: len(rows) // 2]] = True
    if not halves.any():
        raise UserError(f"{len(groups)} images of as many categories; expected two of a category")
    return halves
