"""Candidates of a step of the greedy search and the order in which they are taken.

The paper takes the candidate with the lowest (L(net') − L0) / (t0 − t(net')). Two rules are ours:

* If the loss falls, the paper's cost prefers the smallest saving. Here candidates without an
  increase of the loss come first, the greatest saving before others, equal ones by their loss; all
  others follow in the order of the cost. `order="ratio"` is the paper's.
* A candidate must compute fewer positions of its layer than the current network does, and be faster
  than it by more than the noise of the timings, `MeasuredTime.margin`. A level that is not is
  skipped. So no step increases the time, and none is taken because of noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import numpy as np

from adaptive_nets.perforation.layers import ConvLayer
from adaptive_nets.perforation.plan import Kind, PerforationPlan, make_plan
from adaptive_nets.runtime.errors import UserError

Impacts = Mapping[str, np.ndarray]
Order = Literal["saving first", "ratio"]
# Keep fractions: perforation rates 0, 1/3, 1/2, 2/3, 3/4 … 19/20.
LEVELS = (1.0, 2 / 3, *(1 / n for n in range(2, 21)))


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings of the search.

    Attributes:
        kinds: allowed kinds of masks; "pooling" is tried only before a pooling layer.
        repetitions: number of random masks per layer and kind.
        impact_on: "perforated" recomputes impacts on the perforated network after every step;
            "original" uses those of the unperforated network, as the released code does.
        levels: keep fractions, strictly decreasing from 1.
        order: order of candidates, see the module: "saving first", or the paper's "ratio".
    """

    kinds: tuple[Kind, ...] = ("impact",)
    repetitions: int = 2
    impact_on: Literal["perforated", "original"] = "perforated"
    levels: tuple[float, ...] = LEVELS
    order: Order = "saving first"

    def __post_init__(self):
        if not self.kinds or self.repetitions < 1:
            raise UserError(
                f"the search has kinds {self.kinds!r} and {self.repetitions} repetitions; expected "
                "at least one of each"
            )
        if self.levels[0] != 1 or any(np.diff(self.levels) >= 0) or self.levels[-1] <= 0:
            raise UserError(
                f"levels are {self.levels!r}; expected positive fractions, strictly decreasing "
                "from 1"
            )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Candidate of a step: one layer at its next level.

    Attributes:
        layer: name of the layer.
        kind: kind of its mask.
        level: index into the levels.
        plan: plan of the network with this mask.
    """

    layer: str
    kind: Kind
    level: int
    plan: PerforationPlan


def cost_of_step(
    loss: float, amount: float, *, original_loss: float, original_amount: float
) -> float:
    """Computes (L(net') − L0) / (t0 − t(net')); inf if net' is not faster or its loss is NaN."""
    if not amount < original_amount or math.isnan(loss):
        return math.inf
    return (loss - original_loss) / (original_amount - amount)


def rank_of_step(
    loss: float,
    amount: float,
    *,
    original_loss: float,
    original_amount: float,
    order: Order = "saving first",
) -> tuple[float, ...]:
    """Computes the rank of a candidate; the lowest is taken, and never one that begins with inf.

    Args:
        loss: L(net').
        amount: t(net').
        original_loss: L0.
        original_amount: t0.
        order: "ratio" ranks by the paper's cost alone. With "saving first", candidates whose loss
            does not exceed L0 come first, by falling saving, then by loss; the others follow by
            cost, then by falling saving.
    """
    cost = cost_of_step(loss, amount, original_loss=original_loss, original_amount=original_amount)
    if cost == math.inf:
        return (math.inf,)
    if order == "ratio":
        return (cost,)
    if loss <= original_loss:
        return (-1.0, amount, loss)
    return (cost, amount, loss)


def searched_layers(layers: Sequence[ConvLayer]) -> list[ConvLayer]:
    """Selects the layers that the paper perforates: not 1x1, with a later pooling layer.

    Raises:
        UserError: there are none.
    """
    chosen = [layer for layer in layers if layer.by_default]
    if not chosen:
        raise UserError(
            "the network has no layer to perforate; expected a convolution larger than 1x1 with a "
            "pooling layer after it"
        )
    return chosen


def further_levels(
    layers: Sequence[ConvLayer], levels: Mapping[str, int], settings: SearchSettings
) -> dict[str, list[int]]:
    """Returns the levels after the current one that keep at least one position, by layer.

    Args:
        layers: all convolutions of the network.
        levels: layer -> index of its current level.
        settings: the levels.
    """
    return {
        layer.name: [
            level
            for level in range(levels[layer.name] + 1, len(settings.levels))
            if settings.levels[level] * layer.positions >= 1
        ]
        for layer in searched_layers(layers)
    }


def make_candidates(
    layers: Sequence[ConvLayer],
    plan: PerforationPlan,
    levels: Mapping[str, int],
    *,
    settings: SearchSettings,
    impacts: Impacts,
    key: jax.Array,
    is_faster: Callable[[PerforationPlan], bool] = lambda plan: True,
) -> list[Candidate]:
    """Creates the candidates of a step: each layer at a further level, with newly drawn masks.

    The level is the next one at which the layer computes fewer positions than in `plan` and the
    network is faster. A layer without such a level has no candidates.

    Args:
        layers: all convolutions of the network.
        plan: current plan; other layers keep their masks.
        levels: layer -> index of its current level.
        settings: kinds and repetitions.
        impacts: layer -> float[H', W'], for masks of kind "impact".
        key: PRNG key of the step.
        is_faster: plan -> whether it is faster than the current one by more than noise.

    Returns:
        Candidates in the order of layers, kinds, repetitions.
    """
    found = []
    left = further_levels(layers, levels, settings)
    for place, layer in enumerate(searched_layers(layers)):
        mask = plan.layers.get(layer.name)
        computed = layer.positions if mask is None else mask.kept
        for kind in settings.kinds:
            if kind == "pooling" and layer.pooling is None:
                continue
            kind_key = jax.random.fold_in(jax.random.fold_in(key, place), _KINDS.index(kind))
            for level in left[layer.name]:
                rate = {layer.name: 1 - settings.levels[level]}
                drawn = [
                    plan.replace(
                        **make_plan(
                            jax.random.fold_in(kind_key, repetition), layers, rate, kind, impacts
                        ).layers
                    )
                    for repetition in range(settings.repetitions)
                ]
                if drawn[0].layers[layer.name].kept < computed and is_faster(drawn[0]):
                    found += [Candidate(layer.name, kind, level, changed) for changed in drawn]
                    break
    return found


# Their order is part of the results: never change it.
_KINDS = ("uniform", "grid", "pooling", "impact", "regular")


def cost_key(plan: PerforationPlan) -> str:
    """Returns a cache key for the time or multiply-accumulates of a plan.

    The cost depends on the mask kind and the number of kept positions of each layer, not on which
    positions are kept.
    """
    parts = (f"{name}={m.kind}:{m.kept}" for name, m in sorted(plan.layers.items()) if m.keep < 1)
    return ";".join(parts)
