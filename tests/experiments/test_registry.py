"""Every experiment is complete, builds, and is what its golden text says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from toy_papers import PRUNED, TRAINED

from adaptive_nets.models import model_entry
from adaptive_nets.runtime.errors import UserError
from experiments.suite import config as config_lib
from experiments.suite.experiment import OPTIONAL, PRESETS
from experiments.suite.registry import (
    experiments,
    find_experiment,
    find_preset,
    load_paper,
    papers,
    select,
)

GOLDEN = Path(__file__).parent / "golden"
each = pytest.mark.parametrize("experiment", experiments().values(), ids=list(experiments()))


def golden_text(experiment) -> str:
    parts = []
    for name, preset in experiment.presets.items():
        parts.append(f"[{name}] seeds {preset.seeds}\n{config_lib.text(preset.config)}")
    return "\n".join(parts)


@each
def test_golden_text(experiment):
    """Refresh with ADAPTIVE_NETS_REFRESH_GOLDEN=1 after a change that is meant."""
    path = GOLDEN / f"{experiment.id}.txt"
    if os.environ.get("ADAPTIVE_NETS_REFRESH_GOLDEN"):
        path.write_text(golden_text(experiment))
    assert path.exists(), "no golden text; see this test's docstring"
    assert golden_text(experiment) == path.read_text()


def test_every_golden_text_has_an_experiment():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(experiments())


@each
def test_entries_are_complete(experiment):
    assert tuple(experiment.presets) == tuple(p for p in PRESETS if p in experiment.presets)
    assert set(PRESETS) - set(experiment.presets) <= set(OPTIONAL)
    prefix = getattr(papers()[experiment.paper].load("configs"), "IDS", experiment.paper)
    assert experiment.id.startswith(f"{prefix}.")
    assert experiment.row in load_paper(experiment.paper).rows
    assert callable(experiment.load_runner())
    for preset in experiment.presets.values():
        model = config_lib.group(preset.config, "model")
        assert model is None or model_entry(model.name)
        assert preset.seeds >= 1
    for bound in experiment.presets["paper"].bounds:
        assert bound.low < bound.high
    assert all(sentence.endswith(".") for sentence in experiment.deviations)


@each
def test_presets_differ_in_size_only(experiment):
    paper = experiment.presets["paper"].config
    for name in set(experiment.presets) - {"paper"}:
        changed = config_lib.changed_values(experiment.presets[name].config, paper)
        longer = (
            {"schedule.kind", "schedule.warmup", "schedule.boundaries"} if name == "day" else set()
        )
        # A text that is always present.
        if name == "smoke" and "data.vocabulary" in config_lib.identity(paper):
            longer.add("data.name")
        assert set(changed) - longer <= {
            "schedule.length", "variational.kl_start", "variational.kl_full",
            # What makes up for a short schedule.
            "schedule.hold", "optimiser.learning_rate", "network.dropout_rate",
            "data.batch_size", "data.train_limit", "data.test_limit",
            # A shallower network of the same family, and points of a curve.
            "model.name", "baseline.units", "curve.points", "halting.taus",
            "tuning.networks",
            "layer.batch_size", "layer.images", "layer.impact_images", "layer.rates", "layer.draws",
            "search.batch_size", "search.cost", "search.images", "search.impact_images",
            "search.kinds", "search.repetitions", "search.runs", "search.steps",
            "timing.batches", "timing.seconds",
            "tradeoff.batch_size", "tradeoff.impact_images", "tradeoff.keeps", "tradeoff.sizes",
            "tradeoff.draws", "views.counts", "speed.seconds",
            "pool.counts", "search.length", "search.splits", "search.grid", "search.grid_views",
            "corruption.kinds", "corruption.severities", "transfer.name", "transfer.weights",
            "second.name", "drawn.candidates", "drawn.objects", "drawn.length",
            "ensemble.groupings", "noise.every", "noise.samples", "cycle.length", "swag.length",
            "swag.every", "swag.statistics_images", "variational.length", "laplace.images",
            "laplace.held_out", "laplace.samples", "laplace.scales",
            "embedding.views", "interpolation.points", "probe.iterations", "probe.penalties",
            # Shorter texts, and narrower networks.
            "data.length", "network.depth", "network.hidden", "network.hyper_hidden",
            "network.width", "network.widths",
            # Fewer source networks, and the weight decay that a short training needs.
            "sources.count", "sources.relative_norm", "sources.penalty",
            "vae.hidden", "vae.latent", "vae.epochs", "vae.least_steps", "vae.batch_size",
            "vae.samples", "vae.measured", "vae.train_limit", "labels.count",
            "prior.subset", "prior.members",
            # Generated pictures, fewer candidates, and a small network.
            "fixations.name", "fixations.limit", "fixations.others", "halves.repeats",
            "smoothing.sigmas", "smoothing.centre_weights", "pictures.longer_side", "network.name",
            # Fewer budgets, and fewer images that calibrate them.
            "budget.evaluations", "budget.images", "budget.shares",
            # Generated pictures with boxes, and a small detector.
            "images.generated", "images.short", "images.long", "images.multiple",
            "detector.anchor_sizes", "detector.anchor_samples", "detector.candidates",
            "detector.channels", "detector.crop_size", "detector.proposals", "detector.reference",
            "detector.region_samples", "detector.stride",
        }  # fmt: skip


def test_rows_of_one_paper_belong_to_one_experiment():
    for paper in papers():
        rows = [e.row for e in experiments().values() if e.paper == paper]
        assert len(set(rows)) == len(rows)


def test_selects_by_pattern_and_by_beginning(toy_paper):
    assert [e.id for e in select("*small-pruned")] == [PRUNED]
    assert [e.id for e in select("toy.table1.tiny")] == [PRUNED]
    assert [e.id for e in select("toy.table1")] == [TRAINED, PRUNED]
    assert len(select("*")) == len(experiments())
    with pytest.raises(UserError, match="no experiment matches 'tyo'; did you mean 'toy'"):
        select("tyo")


def test_unknown_names_suggest_the_nearest(toy_paper):
    with pytest.raises(UserError, match=r"did you mean 'toy\.table1\.small-pruned'"):
        find_experiment("toy.table1.smal-pruned")
    with pytest.raises(UserError, match="--preset is 'fast'; expected one of smoke, quick, paper"):
        find_preset(find_experiment(PRUNED), "fast")


def test_the_papers_numbers_say_where_they_were_read():
    for name in papers():
        paper = load_paper(name)
        for row in paper.rows.values():
            assert row.tag in ("verified", "digitised", "derived", "memory")
            assert row.source
            assert set(row.values) <= set(paper.measures)
        for measure in paper.measures.values():
            assert measure.better in ("lower", "higher", "near")
            assert measure.tolerance > 0
