"""Gradient noise in records of the multiplicative and the additive form."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.papers.sparse_vd.configs.parameterisation import FORMS
from experiments.suite.groups import Group

SHOWN = "sparse_vd.parameterisation.lenet-300-100"
"""Start of the ids of the experiments whose panels the README shows."""
PANELS = {
    "gradient-noise-over-rates.svg": "Variance of the gradient of θ over log α",
    "gradient-noise-over-training.svg": "Median variance of the gradient of θ over training",
    "gradient-noise-ratio.svg": "Variance of the multiplicative form over that of the additive",
}
"""Files of these panels, in their order in the figure, and what they show."""

LEAST_WEIGHTS = 10
"""Weights of a bin below which it is not shown."""

_WEIGHTS = "gradient_weights."


def layers_of(group: Group) -> list[str]:
    """Returns the layers whose gradient noise was measured, that with the most weights first."""
    stored = _stored(group)
    counts = {
        name.removeprefix(_WEIGHTS): int(values.sum())
        for name, values in (stored[0].items() if stored else ())
        if name.startswith(_WEIGHTS)
    }
    return sorted(counts, key=lambda layer: (-counts[layer], layer))


def draws_of(group: Group) -> set[int]:
    """Returns the numbers of draws after training."""
    return {int(arrays["gradient_draws"]) for arrays in _stored(group)}


def _stored(group: Group) -> list[dict[str, np.ndarray]]:
    """Returns the arrays of every seed that has measured the noise."""
    every = [record.arrays() for record in group.records]
    return [arrays for arrays in every if "gradient_edges" in arrays]


@dataclasses.dataclass(frozen=True)
class OverRates:
    """Measure over log α, the mean over seeds.

    Attributes:
        middles: middles of the bins of log α.
        values: measure in each bin; NaN with fewer than `LEAST_WEIGHTS` weights in every seed.
    """

    middles: np.ndarray
    values: np.ndarray


def over_rates(group: Group, measure: str, form: str, layer: str) -> OverRates:
    """Returns a measure of one layer over log α.

    Args:
        group: records with `layers_of` them.
        measure: "gradient_variance", "gradient_snr", or either with the prefix "sampled_".
        form: one of `FORMS`.
        layer: name of the layer.
    """
    stored = _stored(group)
    edges = stored[0]["gradient_edges"]
    values = np.array([arrays[f"{measure}.{form}.{layer}"] for arrays in stored])
    counts = np.array([arrays[f"{_WEIGHTS}{layer}"] for arrays in stored])
    enough = (counts >= LEAST_WEIGHTS) & np.isfinite(values)
    seeds = np.sum(enough, axis=0)
    total = np.sum(np.where(enough, values, 0.0), axis=0, dtype=np.float64)
    mean = np.full(len(edges) - 1, np.nan)
    np.divide(total, seeds, out=mean, where=seeds > 0)
    return OverRates((edges[:-1] + edges[1:]) / 2, mean)


def variance_ratio(group: Group, layer: str, *, sampled: bool) -> OverRates:
    """Returns the variance of the multiplicative form over that of the additive, over log α.

    Args:
        group: records with `layers_of` them.
        layer: name of the layer.
        sampled: whether the weights are sampled, instead of the noise of training.
    """
    measure = "sampled_gradient_variance" if sampled else "gradient_variance"
    above, below = (over_rates(group, measure, form, layer) for form in FORMS)
    ratio = np.full_like(above.values, np.nan)
    np.divide(above.values, below.values, out=ratio, where=below.values > 0)
    return OverRates(above.middles, ratio)
