"""Greedy search for the masks of a network [figurnov2016, sec. 3.3].

Starting from the unperforated network, each step moves one layer to a further level of perforation.
Among all layers, allowed mask kinds and random repetitions it takes the candidate with the lowest

    cost = (L(net') − L0) / (t0 − t(net')),

relative to the original network, or infinity if net' is not faster. L is the mean loss on training
images; t is the time or the multiply-accumulates of a forward pass. Weights do not change.

The rules that differ from the paper's are in `candidates`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from adaptive_nets.perforation.candidates import (
    Impacts,
    SearchSettings,
    cost_key,
    cost_of_step,
    further_levels,
    make_candidates,
    rank_of_step,
    searched_layers,
)
from adaptive_nets.perforation.filled_loss import FilledLoss
from adaptive_nets.perforation.layers import ConvLayer, fingerprint
from adaptive_nets.perforation.plan import PerforationPlan
from adaptive_nets.perforation.plan_files import load_plan, save_plan
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.interrupt import Interrupted, InterruptGuard
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress
from adaptive_nets.runtime.reading import read_json_file

# Plan -> t. It may have `margin` and `measured` as `MeasuredTime` does.
CostFn = Callable[[PerforationPlan], float]
# (plan, tick) -> impacts. `tick` is called periodically; an exception from it cancels the search.
ImpactsFn = Callable[[PerforationPlan, Callable[[], None]], Impacts]
STATE = "search.json"


@dataclasses.dataclass(frozen=True)
class Step:
    """Accepted step of the search.

    Attributes:
        number: index of the step, from 1.
        layer: name of the layer perforated further.
        kind: kind of its new mask.
        keep: keep fraction of its new level.
        loss: L of the network after the step, nats.
        seconds_or_macs: t of the network after the step.
        cost: cost of the accepted candidate.
    """

    number: int
    layer: str
    kind: str
    keep: float
    loss: float
    seconds_or_macs: float
    cost: float


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Result of the search.

    Attributes:
        loss: L0 of the original network, nats.
        seconds_or_macs: t0 of the original network.
        steps: accepted steps in order.
        plan: plan after the last step.
        ended: stopping reason: `target` reached, number of `steps` reached, all layers at their
            last level, or no candidate faster than the current network.
    """

    loss: float
    seconds_or_macs: float
    steps: tuple[Step, ...]
    plan: PerforationPlan
    ended: Literal["target", "steps", "levels", "not faster"]

    @property
    def reduction(self) -> float:
        """Returns t0 / t after the last step."""
        return self.seconds_or_macs / (self.steps or (self,))[-1].seconds_or_macs


class GreedySearch:
    """Greedy search that saves every step to a directory and resumes from it.

    Args:
        layers: all convolutions of the network, from `conv_layers`.
        losses: loss L of nearest-kept maps.
        cost_fn: plan -> t, seconds or multiply-accumulates.
        impacts_fn: (plan, tick) -> average impacts of the perforated network. `tick` is called
            periodically; an exception from it cancels the search. None without impact masks.
        settings: kinds, repetitions, levels.
        seed: seed of all random masks.
        directory: directory of search.json and plans/, written at every step.
        identity: JSON values of everything else that determines the result: network, images, cost.
        model: name of the network.

    Raises:
        UserError: the directory holds a search with another identity or an unreadable one.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer],
        *,
        losses: FilledLoss,
        cost_fn: CostFn,
        impacts_fn: ImpactsFn | None = None,
        settings: SearchSettings,
        seed: int,
        directory: Path,
        identity: Mapping[str, Any],
        model: str = "",
    ):
        if "impact" in settings.kinds and impacts_fn is None:
            raise UserError(
                "impact masks need images to take impacts on; pass impacts_fn, or remove 'impact' "
                "from the kinds"
            )
        self.layers = tuple(layers)
        self.losses, self.cost_fn, self.impacts_fn = losses, cost_fn, impacts_fn
        self.settings = settings
        self.directory = directory
        self._key = jax.random.key(seed)
        self._identity = json.loads(
            json.dumps(
                {
                    **identity,
                    "settings": dataclasses.asdict(settings),
                    "seed": seed,
                    "layers": fingerprint(layers),
                }
            )
        )
        self._plan = PerforationPlan(fingerprint(layers), {}, model)
        self._amounts: dict[str, float] = {}
        self._original_loss: float | None = None
        self._steps: list[Step] = []
        self._original_impacts: Impacts | None = None
        self._read()

    @property
    def steps(self) -> tuple[Step, ...]:
        """Returns the accepted steps, including those of earlier calls."""
        return tuple(self._steps)

    def plan_at_step(self, number: int) -> PerforationPlan:
        """Returns the plan after `number` steps."""
        if number == 0:
            return dataclasses.replace(self._plan, layers={})
        return load_plan(self._plan_path(number))

    def run(
        self,
        *,
        steps: int,
        target: float = math.inf,
        progress: ProgressReporter | None = None,
        title: str = "search",
    ) -> SearchResult:
        """Runs the search, or resumes an earlier one in the same directory.

        Args:
            steps: maximum number of accepted steps, including earlier ones.
            target: speed-up t0 / t at which the search stops.
            progress: progress reporter; None reports nothing.
            title: title of the progress report.

        Raises:
            Interrupted: SIGTERM or ^C was received; every accepted step is saved.
        """
        progress = progress or SilentProgress()
        # A step is one pass over the images; the first pass also gives L0.
        per_step = self.losses.batches
        total = steps * per_step
        progress.start(title, done=len(self._steps) * per_step, total=total, unit="batches")
        try:
            with InterruptGuard() as guard:
                while True:
                    ended = self._stop_reason(steps, target)
                    if ended is None:
                        ended = self._take_step(_Reporter(progress, guard, self, per_step))
                    if ended is not None:
                        return self._result(ended)
        finally:
            progress.finish()

    def _stop_reason(self, steps: int, target: float) -> Literal["target", "steps"] | None:
        if self._steps:
            original = self._amount(dataclasses.replace(self._plan, layers={}))
            if original / self._amount(self._plan) >= target:
                return "target"
        return "steps" if len(self._steps) >= steps else None

    def _result(self, ended: Any) -> SearchResult:
        loss = self.losses.of({}) if self._original_loss is None else self._original_loss
        original = self._amount(dataclasses.replace(self._plan, layers={}))
        steps = self.steps
        if hasattr(self.cost_fn, "measured"):
            # By all measurements, also those after a step, so that t falls at every step.
            steps = tuple(
                dataclasses.replace(
                    step, seconds_or_macs=self._amount(self.plan_at_step(step.number))
                )
                for step in steps
            )
        return SearchResult(loss, original, steps, self._plan, ended)

    def _take_step(self, reporter: _Reporter) -> Literal["levels", "not faster"] | None:
        number = len(self._steps) + 1
        original = dataclasses.replace(self._plan, layers={})
        original_amount = self._amount(original)

        def is_faster(plan: PerforationPlan) -> bool:
            reporter.check()
            return self._amount(self._plan) - self._amount(plan) > self._margin(plan)

        candidates = make_candidates(
            self.layers,
            self._plan,
            self._levels(),
            settings=self.settings,
            impacts=self._impacts(reporter.check),
            key=jax.random.fold_in(self._key, number),
            is_faster=is_faster,
        )
        if not candidates:
            left = further_levels(self.layers, self._levels(), self.settings)
            return "not faster" if any(left.values()) else "levels"
        maps = {name: layer.nearest for name, layer in self._plan.layers.items()}
        current, *losses = self.losses.candidate_losses(
            maps,
            [(c.layer, c.plan.layers[c.layer].nearest) for c in candidates],
            after_batch=reporter.after_batch,
        )
        if self._original_loss is None:
            self._original_loss = current
        # After all measurements, each of which may change the others of its layer.
        amounts = [self._amount(candidate.plan) for candidate in candidates]
        against = {"original_loss": self._original_loss, "original_amount": original_amount}
        ranks = [
            rank_of_step(loss, amount, **against, order=self.settings.order)
            for loss, amount in zip(losses, amounts, strict=True)
        ]
        best = min(range(len(ranks)), key=ranks.__getitem__)
        if ranks[best][0] == math.inf:
            return "not faster"
        chosen = candidates[best]
        self._plan = chosen.plan
        self._steps.append(
            Step(
                number,
                chosen.layer,
                chosen.kind,
                self.settings.levels[chosen.level],
                losses[best],
                amounts[best],
                cost_of_step(losses[best], amounts[best], **against),
            )
        )
        save_plan(self._plan_path(number), self._plan)
        self._write()
        return None

    def _levels(self) -> dict[str, int]:
        levels = {layer.name: 0 for layer in searched_layers(self.layers)}
        for step in self._steps:
            levels[step.layer] = self.settings.levels.index(step.keep)
        return levels

    def _amount(self, plan: PerforationPlan) -> float:
        """Returns t of a plan; a cost that measures keeps its measurements, which are saved."""
        if hasattr(self.cost_fn, "measured"):
            known = len(self._measured())
            amount = float(self.cost_fn(plan))
            if len(self._measured()) > known:
                self._write()
            return amount
        name = cost_key(plan)
        if name not in self._amounts:
            self._amounts[name] = float(self.cost_fn(plan))
        return self._amounts[name]

    def _margin(self, plan: PerforationPlan) -> float:
        margin = getattr(self.cost_fn, "margin", None)
        return 0.0 if margin is None else margin(self._plan, plan)

    def _measured(self) -> dict[str, list[float]]:
        return getattr(self.cost_fn, "measured", {})

    def _impacts(self, tick: Callable[[], None]) -> Impacts:
        if "impact" not in self.settings.kinds or self.impacts_fn is None:
            return {}
        if self.settings.impact_on == "perforated":
            return self.impacts_fn(self._plan, tick)
        if self._original_impacts is None:
            original = dataclasses.replace(self._plan, layers={})
            self._original_impacts = self.impacts_fn(original, tick)
        return self._original_impacts

    def _plan_path(self, number: int) -> Path:
        return self.directory / "plans" / f"step{number:03}.safetensors"

    def _write(self) -> None:
        write_json_atomically(
            self.directory / STATE,
            {
                "identity": self._identity,
                "loss": self._original_loss,
                "amounts": self._amounts,
                "measured": self._measured(),
                "steps": [dataclasses.asdict(step) for step in self._steps],
            },
        )

    def _read(self) -> None:
        path = self.directory / STATE
        if not path.exists():
            return
        try:
            content = read_json_file(path)
            identity = content["identity"]
            steps = [Step(**step) for step in content["steps"]]
            loss, amounts = content["loss"], dict(content["amounts"])
            measured = {
                name: [float(value) for value in values]
                for name, values in content.get("measured", {}).items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} cannot be read; move {self.directory} away to start a new search"
            ) from error
        for name in {**identity, **self._identity}:
            stored, requested = identity.get(name), self._identity.get(name)
            if stored != requested:
                raise UserError(
                    f"{self.directory} holds a search with {name} {stored!r}; expected "
                    f"{requested!r}, or another directory"
                )
        self._steps, self._original_loss, self._amounts = steps, loss, amounts
        self._measured().update(measured)
        if steps:
            self._plan = self.plan_at_step(len(steps))


class _Reporter:
    """Reporter of search progress that raises `Interrupted` after a signal."""

    def __init__(
        self, progress: ProgressReporter, guard: InterruptGuard, search: GreedySearch, batches: int
    ):
        self._progress, self._guard, self._search = progress, guard, search
        self._done = len(search.steps) * batches

    def after_batch(self) -> None:
        """Advances the progress by one batch."""
        self._done += 1
        shown = {}
        if self._search.steps:
            last = self._search.steps[-1]
            shown = {"step": float(last.number), "loss": last.loss}
        self._progress.update(self._done, shown)
        self.check()

    def check(self) -> None:
        """Raises `Interrupted` if a signal was received; accepted steps are on disk."""
        if self._guard.received is not None:
            raise Interrupted(self._guard.received, len(self._search.steps))
