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
from adaptive_nets.perforation import conv_layers, make_plan, perforate
from adaptive_nets.perforation.filled_loss import FilledLoss
from adaptive_nets.perforation.search import (
    LEVELS,
    GreedySearch,
    SearchSettings,
    cost_key,
    cost_of_step,
    make_candidates,
)
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


def test_each_step_is_the_best_of_all_candidates(problem, tmp_path):
    found = search(problem, tmp_path).run(steps=3)
    assert found.loss == pytest.approx(loss_by_hand(problem, make_plan(
        jax.random.key(0), problem.layers, {})), rel=1e-5)  # fmt: skip
    assert found.seconds_or_macs == problem.macs.whole
    by_hand = search(problem, tmp_path / "none")
    plan, levels = by_hand.plan_at_step(0), {"first": 0, "second": 0}
    for step in found.steps:
        key = jax.random.fold_in(jax.random.key(5), step.number)
        candidates = make_candidates(
            problem.layers, plan, levels, settings=SETTINGS, impacts={}, key=key
        )
        costs = [
            (loss_by_hand(problem, c.plan) - found.loss)
            / (problem.macs.whole - problem.macs(c.plan))
            for c in candidates
        ]
        best = candidates[int(np.argmin(costs))]
        assert (step.layer, step.kind) == (best.layer, best.kind)
        assert step.cost == pytest.approx(min(costs), rel=1e-3)
        assert step.seconds_or_macs == problem.macs(best.plan)
        plan = best.plan
        levels[step.layer] += 1
        assert step.keep == SETTINGS.levels[levels[step.layer]]
    assert found.plan == plan
    assert found.ended == "steps"


def test_it_ends_at_the_last_levels_and_at_the_target(problem, tmp_path):
    whole = search(problem, tmp_path / "whole").run(steps=50)
    assert whole.ended == "levels"
    assert len(whole.steps) == 4
    assert {m.keep for m in whole.plan.layers.values()} <= {0.25, 16 / 72}
    # The seed decides: the same search again stops on the way.
    enough = search(problem, tmp_path / "enough").run(steps=50, target=1.3)
    assert enough.ended == "target"
    assert enough.reduction >= 1.3
    assert enough.steps == whole.steps[: len(enough.steps)]
    before = enough.steps[-2].seconds_or_macs if len(enough.steps) > 1 else whole.seconds_or_macs
    assert whole.seconds_or_macs / before < 1.3


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
