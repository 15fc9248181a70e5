"""The greedy search against a search by hand, and that it goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import math

import flax.linen as nn
import jax
import numpy as np
import pytest

from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.perforation import MeasuredTime, conv_layers, make_plan, perforate
from adaptive_nets.perforation.candidates import (
    LEVELS,
    SearchSettings,
    cost_key,
    cost_of_step,
    make_candidates,
    rank_of_step,
)
from adaptive_nets.perforation.filled_loss import FilledLoss
from adaptive_nets.perforation.search import GreedySearch
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.runtime.progress import SilentProgress

pytestmark = pytest.mark.core

SHAPE = (8, 9, 2)
SETTINGS = SearchSettings(kinds=("uniform", "grid"), repetitions=2, levels=(1.0, 0.5, 0.25))


class Small(nn.Module):
    """Two convolutions to perforate and two 1x1 ones that are not."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="first")(x))
        x = nn.relu(nn.Conv(5, (1, 1), name="mix")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), name="second")(x))
        x = nn.Conv(3, (1, 1), name="last")(x)
        return x.mean(axis=(1, 2))


@dataclasses.dataclass
class Problem:
    model: nn.Module
    variables: dict
    images: np.ndarray
    labels: np.ndarray
    layers: tuple
    losses: FilledLoss
    macs: ExecutedMacs


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(10, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, 3, 10)
    model = Small()
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    layers = conv_layers(model, variables, SHAPE)
    sizes = {layer.name: layer.output_size for layer in layers if layer.by_default}
    losses = FilledLoss(model, variables, sizes=sizes, images=images, labels=labels, batch_size=4)
    macs = ExecutedMacs(model, variables, SHAPE)
    return Problem(model, variables, images, labels, layers, losses, macs)


def search(problem, directory, *, settings=SETTINGS, seed=5, identity=None, **options):
    return GreedySearch(
        problem.layers,
        losses=problem.losses,
        cost_fn=options.pop("cost_fn", problem.macs),
        settings=settings,
        seed=seed,
        directory=directory,
        identity=identity or {"network": "small"},
        **options,
    )


def loss_by_hand(problem, plan):
    logits = np.asarray(
        perforate(problem.model, problem.variables, plan).apply(problem.variables, problem.images),
        np.float64,
    )
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(logits)), problem.labels].mean()


def test_the_levels_are_the_papers():
    rates = [1 - keep for keep in LEVELS]
    assert rates[:5] == pytest.approx([0, 1 / 3, 1 / 2, 2 / 3, 3 / 4])
    assert rates[-1] == pytest.approx(19 / 20)
    assert len(LEVELS) == 21


@pytest.mark.parametrize(
    ("loss", "amount", "expected"),
    [(3.0, 60.0, 0.05), (0.5, 50.0, -0.01), (1.0, 99.0, 0.0), (9.0, 100.0, math.inf),
     (0.1, 101.0, math.inf), (math.nan, 10.0, math.inf)],
)  # fmt: skip
def test_the_cost_is_cumulative_and_infinite_where_nothing_is_gained(loss, amount, expected):
    got = cost_of_step(loss, amount, original_loss=1.0, original_amount=100.0)
    assert got == pytest.approx(expected)


def ranked(candidates, order):
    """Candidates (loss, amount) against L0 = 1 and t0 = 100, best first."""
    ranks = [
        rank_of_step(loss, amount, original_loss=1.0, original_amount=100.0, order=order)
        for loss, amount in candidates
    ]
    allowed = [i for i, rank in enumerate(ranks) if rank[0] < math.inf]
    return [candidates[i] for i in sorted(allowed, key=ranks.__getitem__)]


@pytest.mark.parametrize(
    ("candidates", "ours", "papers"),
    [
        # Loss falls equally: the paper takes the smallest saving.
        ([(0.9, 90.0), (0.9, 50.0)], [(0.9, 50.0), (0.9, 90.0)], [(0.9, 90.0), (0.9, 50.0)]),
        # A larger fall of the loss does not make up for a smaller saving; equal savings by loss.
        (
            [(0.5, 90.0), (0.9, 50.0), (0.8, 50.0), (1.0, 40.0)],
            [(1.0, 40.0), (0.8, 50.0), (0.9, 50.0), (0.5, 90.0)],
            [(0.5, 90.0), (0.8, 50.0), (0.9, 50.0), (1.0, 40.0)],
        ),
        # Any candidate without an increase comes before any with one; those are ordered as in
        # the paper, equal costs by their saving.
        (
            [(1.1, 90.0), (1.5, 50.0), (1.0001, 50.0), (0.99, 99.0)],
            [(0.99, 99.0), (1.0001, 50.0), (1.5, 50.0), (1.1, 90.0)],
            None,
        ),
        # What is not faster, or NaN, is never taken.
        ([(0.1, 100.0), (math.nan, 10.0), (2.0, 99.0), (0.1, 101.0)], [(2.0, 99.0)], [(2.0, 99.0)]),
        ([(0.1, 100.0)], [], []),
    ],
)
def test_order_of_candidates_in_closed_cases(candidates, ours, papers):
    assert ranked(candidates, "saving first") == ours
    if papers is not None:
        assert ranked(candidates, "ratio") == papers


def test_every_layer_kind_and_repetition_is_a_candidate(problem, key):
    plan = make_plan(key, problem.layers, {"first": 0.5}, "uniform")
    found = make_candidates(
        problem.layers, plan, {"first": 1, "second": 0}, settings=SETTINGS, impacts={}, key=key
    )
    assert [(c.layer, c.kind, c.level) for c in found] == [
        ("first", "uniform", 2), ("first", "uniform", 2), ("first", "grid", 2),
        ("first", "grid", 2), ("second", "uniform", 1), ("second", "uniform", 1),
        ("second", "grid", 1), ("second", "grid", 1),
    ]  # fmt: skip
    masks = {c.plan.layers["first"].mask.tobytes() for c in found[:2]}
    assert len(masks) == 2
    # Of 8x9 positions a quarter, of 4x4 a half; the other layer keeps the mask it has.
    assert [c.plan.layers[c.layer].kept for c in (found[0], found[4])] == [18, 8]
    assert all(c.plan.layers["first"] is plan.layers["first"] for c in found[4:])
    at_the_end = {"first": 2, "second": 2}
    assert not make_candidates(
        problem.layers, plan, at_the_end, settings=SETTINGS, impacts={}, key=key
    )


def test_a_level_that_keeps_nothing_is_no_level(problem, key):
    settings = SearchSettings(kinds=("uniform",), levels=(1.0, 1 / 17))
    levels = {"first": 0, "second": 0}
    plan = make_plan(key, problem.layers, {})
    found = make_candidates(problem.layers, plan, levels, settings=settings, impacts={}, key=key)
    assert {c.layer for c in found} == {"first"}


def test_multiply_accumulates_by_hand(problem, key):
    first, mix, second, last = 8 * 9 * 9 * 2 * 4, 8 * 9 * 4 * 5, 16 * 9 * 5 * 6, 16 * 6 * 3
    assert problem.macs(make_plan(key, problem.layers, {})) == first + mix + second + last
    plan = make_plan(key, problem.layers, {"first": 0.5, "second": 0.75}, "uniform")
    # 1x1 convolutions read compact maps, so they shrink with what they read.
    assert problem.macs(plan) == (first + mix) // 2 + (second + last) // 4


@pytest.mark.parametrize("order", ["ratio", pytest.param("saving first", marks=pytest.mark.slow)])
def test_each_step_is_the_best_of_all_candidates(problem, tmp_path, order):
    settings = dataclasses.replace(SETTINGS, order=order)
    found = search(problem, tmp_path, settings=settings).run(steps=2)
    assert found.loss == pytest.approx(loss_by_hand(problem, make_plan(
        jax.random.key(0), problem.layers, {})), rel=1e-5)  # fmt: skip
    assert found.seconds_or_macs == problem.macs.whole
    plan, levels = search(problem, tmp_path / "none").plan_at_step(0), {"first": 0, "second": 0}
    for step in found.steps:
        key = jax.random.fold_in(jax.random.key(5), step.number)
        candidates = make_candidates(
            problem.layers, plan, levels, settings=settings, impacts={}, key=key
        )
        changes = [loss_by_hand(problem, c.plan) - found.loss for c in candidates]
        savings = [problem.macs.whole - problem.macs(c.plan) for c in candidates]
        costs = [change / saving for change, saving in zip(changes, savings, strict=True)]
        if order == "saving first" and min(changes) <= 0:
            best = max(
                (i for i, change in enumerate(changes) if change <= 0),
                key=lambda i: (savings[i], -changes[i]),
            )
        else:
            best = int(np.argmin(costs))
        chosen = candidates[best]
        assert (step.layer, step.kind) == (chosen.layer, chosen.kind)
        assert step.cost == pytest.approx(costs[best], rel=1e-3)
        assert step.seconds_or_macs == problem.macs(chosen.plan)
        assert problem.macs(chosen.plan) < problem.macs(plan)
        plan = chosen.plan
        levels[step.layer] = chosen.level
        assert step.keep == settings.levels[chosen.level]
    assert found.plan == plan
    assert found.ended == "steps"


def test_it_ends_at_the_last_levels_and_at_the_target(problem, tmp_path):
    settings = dataclasses.replace(SETTINGS, kinds=("uniform",))
    whole = search(problem, tmp_path / "whole", settings=settings).run(steps=50)
    assert whole.ended == "levels"
    assert len(whole.steps) == 4
    assert {m.keep for m in whole.plan.layers.values()} == {0.25}
    # The seed decides: the same search again stops on the way.
    enough = search(problem, tmp_path / "enough", settings=settings).run(steps=50, target=1.3)
    assert enough.ended == "target"
    assert enough.reduction >= 1.3
    assert enough.steps == whole.steps[: len(enough.steps)]
    before = enough.steps[-2].seconds_or_macs if len(enough.steps) > 1 else whole.seconds_or_macs
    assert whole.seconds_or_macs / before < 1.3


def test_a_level_that_computes_as_many_positions_is_skipped(problem, key):
    # Grids of 4x4 keep 2x2 of a half and of a quarter.
    plan = make_plan(key, problem.layers, {"second": 0.5}, "grid")
    assert plan.layers["second"].kept == 4
    levels = {"first": 2, "second": 1}
    settings = dataclasses.replace(SETTINGS, levels=(1.0, 0.5, 0.25, 0.125))
    found = make_candidates(
        problem.layers, plan, levels, settings=settings, impacts={}, key=key,
        is_faster=lambda plan: "first" not in plan.layers,
    )  # fmt: skip
    assert [(c.layer, c.kind, c.plan.layers["second"].kept) for c in found] == [
        ("second", "uniform", 2), ("second", "uniform", 2), ("second", "grid", 1),
        ("second", "grid", 1),
    ]  # fmt: skip


class NoisyTime(MeasuredTime):
    """Times of an imaginary machine: t0 = 1 s, a layer saves a share times its copied positions.

    Every pass is slower by a random factor, and in slow phases of the machine by a factor of two.
    """

    def __init__(self, problem, shares, *, noise=0.0, seed=0, rounds=9):
        self.now, self.passes = 0.0, 0
        self.rng, self.noise, self.shares = np.random.default_rng(seed), noise, shares
        images = np.zeros((1, *SHAPE), np.float32)
        clock = lambda: self.now  # noqa: E731
        super().__init__(problem.model, problem.variables, images, rounds=rounds, clock=clock)

    def true_seconds(self, plan):
        return 1 - sum(self.shares[n] * (1 - m.keep) for n, m in plan.layers.items())

    def _forward_pass(self, plan):
        def once():
            self.passes += 1
            slow_phase = 2.0 if self.now // 7 % 3 == 0 else 1.0
            factor = slow_phase * (1 + self.noise * abs(self.rng.standard_normal()))
            self.now += self.true_seconds(plan) * factor

        return once


def test_measured_times_are_exact_without_noise_and_measured_once(problem, key):
    times = NoisyTime(problem, {"first": 0.5, "second": 0.25})
    plan = make_plan(key, problem.layers, {"first": 0.5, "second": 0.75}, "uniform")
    seconds = times.whole_seconds(plan)
    assert times(plan) == pytest.approx(seconds * times.true_seconds(plan))
    passes = times.passes
    other = make_plan(jax.random.key(9), problem.layers, {"second": 0.75}, "uniform")
    assert times(other) == pytest.approx(seconds * (1 - 0.25 * 0.75))
    assert times.margin(other, plan) == pytest.approx(1e-3 * seconds)
    assert times.passes == passes
    assert set(times.measured) == {"", "first=uniform:36", "second=uniform:4"}
    assert times(make_plan(key, problem.layers, {})) == seconds


def test_measured_times_fall_with_every_position_less(problem, key):
    times = NoisyTime(problem, {"first": 0.02, "second": 0.3}, noise=0.05, rounds=15)
    plans = [
        make_plan(key, problem.layers, {"first": rate}, "uniform")
        for rate in (0.2, 0.6, 0.4, 0.9, 0.7)
    ]
    for plan in plans:
        times(plan)
    single = [times.measured[f"first=uniform:{plan.layers['first'].kept}"][0] for plan in plans]
    by_kept = sorted(plans, key=lambda plan: -plan.layers["first"].kept)
    fitted = [times(plan) for plan in by_kept]
    assert fitted == sorted(fitted, reverse=True)
    assert sorted(single) != [1 - t / times.whole_seconds(plans[0]) for t in fitted]
    # A difference of 20 % of the time is no noise.
    second = make_plan(key, problem.layers, {"second": 0.7}, "uniform")
    whole = make_plan(key, problem.layers, {})
    assert times(whole) - times(second) > times.margin(whole, second)


def test_rounds_are_added_while_the_error_is_large(problem, key):
    plan = make_plan(key, problem.layers, {"first": 0.5}, "uniform")
    quiet, noisy = (NoisyTime(problem, {"first": 0.5}, noise=noise) for noise in (0.0, 0.5))
    for times in (quiet, noisy):
        times.saving("first", plan.layers["first"], plan)
    assert quiet.passes == 2 * 9
    assert noisy.passes == 2 * 4 * 9
    assert noisy.measured["first=uniform:36"][1] > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_noise_of_timings_decides_no_step(problem, tmp_path, seed):
    """The second layer saves nothing: it is never perforated, and t falls at every step."""
    settings = SearchSettings(kinds=("uniform",), levels=(1.0, 2 / 3, 1 / 2, 1 / 3, 1 / 4))
    times = NoisyTime(problem, {"first": 0.8, "second": 0.0}, noise=0.03, seed=seed)
    found = search(problem, tmp_path, settings=settings, cost_fn=times).run(steps=9)
    assert {step.layer for step in found.steps} == {"first"}
    assert (found.ended, found.steps[-1].keep) == ("not faster", 1 / 4)
    amounts = [found.seconds_or_macs, *(step.seconds_or_macs for step in found.steps)]
    assert all(np.diff(amounts) < 0)
    kept = [problem.layers[0].positions * step.keep for step in found.steps]
    assert all(np.diff(kept) < 0)
    assert found.reduction == pytest.approx(1 / 0.4, rel=0.15)
    # Another process measures nothing again.
    again = NoisyTime(problem, times.shares, seed=99)
    assert search(problem, tmp_path, settings=settings, cost_fn=again).run(steps=9) == found
    assert again.passes == 0


def test_nothing_is_accepted_that_is_not_faster(problem, tmp_path):
    found = search(problem, tmp_path, cost_fn=lambda plan: 7.0).run(steps=3)
    assert (found.ended, found.steps, found.reduction) == ("not faster", (), 1.0)


def test_a_search_goes_on_as_if_it_had_never_stopped(problem, tmp_path):
    at_once = search(problem, tmp_path / "a").run(steps=3)
    search(problem, tmp_path / "b").run(steps=1)
    calls = []

    def counted(plan):
        calls.append(plan)
        return problem.macs(plan)

    later = search(problem, tmp_path / "b", cost_fn=counted).run(steps=3)
    assert (later.steps, later.plan) == (at_once.steps, at_once.plan)
    # The original and the candidates of the first step are known.
    assert all(cost_key(plan) for plan in calls)
    again = search(problem, tmp_path / "b").run(steps=3)
    assert again == later
    other = search(problem, tmp_path / "c", seed=6).run(steps=3)
    assert other.plan != at_once.plan
    assert search(problem, tmp_path / "a").plan_at_step(1).layers.keys() == {at_once.steps[0].layer}


class StopsAfter(SilentProgress):
    """Sends the signal that a user's ^C is, after so many batches."""

    def __init__(self, batches):
        self.left = batches

    def update(self, done, values=None):
        self.left -= 1
        if not self.left:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("batches", [1, 3, 5])
def test_an_interrupted_search_leads_to_the_same_network(problem, tmp_path, batches):
    with pytest.raises(Interrupted) as stop:
        search(problem, tmp_path / "a").run(steps=3, progress=StopsAfter(batches))
    assert stop.value.step == (batches - 1) // problem.losses.batches
    later = search(problem, tmp_path / "a").run(steps=3)
    assert later.plan == search(problem, tmp_path / "b").run(steps=3).plan


def test_impacts_are_of_the_network_as_perforated_so_far_or_of_the_original(problem, tmp_path):
    asked = []

    def impacts_fn(plan, tick):
        tick()
        asked.append(sorted(plan.layers))
        rng = np.random.default_rng(len(asked))
        return {"first": rng.random((8, 9)), "second": rng.random((4, 4))}

    settings = dataclasses.replace(SETTINGS, kinds=("impact",))
    found = search(problem, tmp_path / "a", settings=settings, impacts_fn=impacts_fn).run(steps=2)
    assert asked == [[], [found.steps[0].layer]]
    asked.clear()
    settings = dataclasses.replace(settings, impact_on="original")
    found = search(problem, tmp_path / "b", settings=settings, impacts_fn=impacts_fn).run(steps=2)
    assert asked == [[]]
    impact = np.random.default_rng(1).random((8, 9))
    kept = [s.keep for s in found.steps if s.layer == "first"]
    if kept:
        expected = impact >= np.sort(impact.ravel())[-int(kept[-1] * 72)]
        np.testing.assert_array_equal(found.plan.layers["first"].mask, expected)


def test_mistakes_are_named(problem, tmp_path):
    search(problem, tmp_path).run(steps=1)
    with pytest.raises(UserError, match="holds a search with seed 5; expected 6, or another"):
        search(problem, tmp_path, seed=6)
    with pytest.raises(UserError, match="holds a search with network 'small'; expected 'other'"):
        search(problem, tmp_path, identity={"network": "other"})
    state = tmp_path / "search.json"
    content = json.loads(state.read_text())
    state.write_text(json.dumps(content)[:-5])
    with pytest.raises(UserError, match=r"search.json cannot be read; move .* away"):
        search(problem, tmp_path)
    with pytest.raises(UserError, match="impact masks need images to take impacts on"):
        search(problem, tmp_path / "x", settings=SearchSettings())
    with pytest.raises(UserError, match="expected positive fractions, strictly decreasing"):
        SearchSettings(levels=(0.5, 0.25))
    with pytest.raises(UserError, match="expected at least one of each"):
        SearchSettings(kinds=())
    with pytest.raises(UserError, match="no layer to perforate"):
        make_candidates(
            problem.layers[1:2], make_plan(jax.random.key(0), problem.layers, {}), {},
            settings=SETTINGS, impacts={}, key=jax.random.key(0),
        )  # fmt: skip
