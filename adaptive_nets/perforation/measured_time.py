"""Measured time of perforated networks on the current device, robust to noise.

A search that times every candidate as a whole compares differences smaller than the scatter of the
timings. Here every (layer, kind of mask, number of kept positions) is measured once:

1. The network with this layer alone perforated and the whole network run in turns, in alternating
   order. The saving is s = 1 − median over rounds of t' / t. A slow phase of the machine affects
   both runs of a round and cancels in the quotient.
2. The standard error of s is that of a median, 1.2533 · 1.4826 · MAD / sqrt(rounds). There are
   `rounds` rounds, and up to four times as many while it exceeds 1 % of t.
3. The savings of a layer and kind are made monotone in the number of kept positions by isotonic
   regression, weighted by their variances: computing fewer positions never counts as slower.
4. t(plan) = t0 · (1 − Σ savings of its layers), so savings of layers add up. In the paper's
   networks a pooling layer, which reads through the nearest-kept map, separates most of them.

Which masks are faster therefore does not depend on when a candidate is measured. The additive model
guides the search only; the speed-up of the found network is measured as a whole.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from scipy.optimize import isotonic_regression

from adaptive_nets.perforation.adapters import adapt_network, canonical_variables
from adaptive_nets.perforation.interpreter import Interpolation
from adaptive_nets.perforation.network import perforate_by_plan
from adaptive_nets.perforation.plan import LayerMask, PerforationPlan
from adaptive_nets.runtime.errors import UserError

# Standard error of the median of normal values in units of their median absolute deviation.
_ERROR_OF_MEDIAN = math.sqrt(math.pi / 2) * 1.4826
# Standard error at which no more rounds are needed, and how many times as many there are at most.
_ENOUGH, _MORE = 0.01, 4
# Least share of the time of the whole network that counts as a saving, below any timer's precision.
_LEAST_SHARE = 1e-3


class MeasuredTime:
    """Cost function of the search: seconds of one forward pass of a plan.

    Args:
        model: the network.
        variables: its variables.
        images: float[N, H, W, C], batch to time.
        rounds: least number of rounds per layer and number of kept positions, at least 3.
        interpolation: see `perforate`.
        clock: timer in seconds; for tests.

    Attributes:
        measured: measurements as JSON values, by key: "" -> [t0 in seconds]; "layer=kind:kept" ->
            [saving, standard error] as shares of t0. The search saves and restores them.

    Raises:
        UserError: there are fewer than 3 rounds.
    """

    def __init__(
        self,
        model: Any,
        variables: Any,
        images: np.ndarray,
        *,
        rounds: int = 11,
        interpolation: Interpolation = "implicit",
        clock: Callable[[], float] = time.perf_counter,
    ):
        if rounds < 3:
            raise UserError(
                f"rounds is {rounds!r}; expected at least 3, for a median and its error"
            )
        self._model, self._rounds, self._clock = model, rounds, clock
        self._interpolation: Interpolation = interpolation
        variables = canonical_variables(adapt_network(model), variables)
        self._variables = jax.device_put(variables)
        self._images = jax.device_put(images)
        self._whole: Callable[[], Any] | None = None
        self.measured: dict[str, list[float]] = {}

    def __call__(self, plan: PerforationPlan) -> float:
        """Returns t(plan) in seconds; measures the layers that are not measured yet.

        Raises:
            UserError: the plan is for another network.
        """
        savings = [self.saving(name, mask, plan)[0] for name, mask in _perforated(plan).items()]
        return self.whole_seconds(plan) * max(1 - sum(savings), _LEAST_SHARE)

    def margin(self, old: PerforationPlan, new: PerforationPlan) -> float:
        """Returns the seconds below which the difference of two plans is noise.

        Three standard errors of the difference of the layers whose masks differ: many levels are
        compared during a search, so that two would be exceeded by chance.
        """
        masks = _perforated(old), _perforated(new)
        variance = 0.0
        for name in {**masks[0], **masks[1]}:
            if masks[0].get(name) is not masks[1].get(name):
                for plan, chosen in zip((old, new), masks, strict=True):
                    if name in chosen:
                        variance += self.saving(name, chosen[name], plan)[1] ** 2
        return max(3 * math.sqrt(variance), _LEAST_SHARE) * self.whole_seconds(new)

    def whole_seconds(self, plan: PerforationPlan) -> float:
        """Returns t0, the median seconds of the whole network.

        Args:
            plan: any plan of the network.
        """
        if "" not in self.measured:
            whole = self._whole_pass(plan)
            self.measured[""] = [statistics.median(self._time(whole) for _ in range(self._rounds))]
        return self.measured[""][0]

    def saving(self, name: str, mask: LayerMask, plan: PerforationPlan) -> tuple[float, float]:
        """Returns the saving of one perforated layer and its standard error, as shares of t0.

        Args:
            name: name of the layer.
            mask: its mask, of which only the kind and the number of kept positions matter.
            plan: any plan of the network.
        """
        key = f"{name}={mask.kind}:{mask.kept}"
        if key not in self.measured:
            self.measured[key] = list(self._measure(name, mask, plan))
        prefix = f"{name}={mask.kind}:"
        points = {
            int(other.removeprefix(prefix)): values
            for other, values in self.measured.items()
            if other.startswith(prefix)
        }
        fewer_first = sorted(points)
        savings, errors = np.array([points[kept] for kept in fewer_first]).T
        weights = 1 / np.maximum(errors, _LEAST_SHARE) ** 2
        monotone = isotonic_regression(savings, weights=weights, increasing=False).x
        return float(monotone[fewer_first.index(mask.kept)]), self.measured[key][1]

    def _measure(self, name: str, mask: LayerMask, plan: PerforationPlan) -> tuple[float, float]:
        alone = self._forward_pass(PerforationPlan(plan.fingerprint, {name: mask}, plan.model))
        whole = self._whole_pass(plan)
        ratios: list[float] = []
        saving = error = math.inf
        while len(ratios) < self._rounds or (
            error > _ENOUGH and len(ratios) < _MORE * self._rounds
        ):
            if len(ratios) % 2:
                fast = self._time(alone)
                ratios.append(fast / self._time(whole))
            else:
                slow = self._time(whole)
                ratios.append(self._time(alone) / slow)
            middle = statistics.median(ratios)
            spread = statistics.median(abs(ratio - middle) for ratio in ratios)
            saving, error = 1 - middle, _ERROR_OF_MEDIAN * spread / math.sqrt(len(ratios))
        return saving, error

    def _whole_pass(self, plan: PerforationPlan) -> Callable[[], Any]:
        if self._whole is None:
            self._whole = self._forward_pass(PerforationPlan(plan.fingerprint, {}, plan.model))
        return self._whole

    def _forward_pass(self, plan: PerforationPlan) -> Callable[[], Any]:
        """Compiles the forward pass of a plan and runs it once."""
        perforated = perforate_by_plan(
            self._model, self._variables, plan, interpolation=self._interpolation
        )
        forward = jax.jit(lambda variables, x: perforated.apply(variables, x, train=False))

        def once() -> None:
            jax.block_until_ready(forward(self._variables, self._images))

        once()
        return once

    def _time(self, work: Callable[[], Any]) -> float:
        began = self._clock()
        work()
        return self._clock() - began


def _perforated(plan: PerforationPlan) -> Mapping[str, LayerMask]:
    return {name: mask for name, mask in plan.layers.items() if mask.keep < 1}
