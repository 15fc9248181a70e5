"""Papers' values: what was verified, who measures each of them, and what defines a row."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from experiments.report.charts import Missing
from experiments.suite import config as config_lib
from experiments.suite.recipe import is_recipe
from experiments.suite.records import PUBLISHED, Record, collect
from experiments.suite.registry import experiments, load_paper, papers

# Every value that may be tagged verified, read in the named sources independently of the files of
# values: authors' repositories, a thesis and its summary, posters, a third party's extract.
VERIFIED = {
    "perforated_cnn": {
        "table1.nin": {"error": 10.4},
        "table1.alexnet": {"top5_error": 19.6},
        "table1.vgg16": {"top5_error": 10.1},
        "figure.single-layer-impact": {"speed_share": "about 80"},
        "figure.nin-tradeoff": {"perforation_best": "better"},
    },
    "sact": {
        "cifar10.r32-sact-tau1e-2": {
            "test_accuracy": 91.82, "flops": 82393168, "flops_std": 7588926,
        },
        "baseline.resnet110": {"flops": 505775360},
        "cifar10.r110-act-tau1e-3": {"test_accuracy": 93.86},
        "imagenet.r101-sact-tau5e-3": {
            "top1": 75.61, "top5": 92.75, "flops": 11100941000, "flops_std": 456900000,
        },
    },
    "sparse_vd": {
        "table1.lenet-300-100-original": {"error": 1.64, "compression": 1},
        "table1.lenet-300-100-pruning": {
            "error": 1.59, "sparsity.fc1": 92.0, "sparsity.fc2": 91.0, "sparsity.fc3": 74.0,
            "compression": 12,
        },
        "table1.lenet-300-100-dns": {
            "error": 1.99, "sparsity.fc1": 98.2, "sparsity.fc2": 98.2, "sparsity.fc3": 94.5,
            "compression": 56,
        },
        "table1.lenet-300-100-sws": {"error": 1.94, "compression": 23},
        "table1.lenet-300-100-sparse": {
            "error": 1.92, "sparsity.fc1": 98.9, "sparsity.fc2": 97.2, "sparsity.fc3": 62.0,
            "compression": 68,
        },
        "table1.lenet-5-caffe-original": {"error": 0.80, "compression": 1},
        "table1.lenet-5-caffe-pruning": {
            "error": 0.77, "sparsity.conv1": 34.0, "sparsity.conv2": 88.0, "sparsity.fc1": 92.0,
            "sparsity.fc2": 81.0, "compression": 12,
        },
        "table1.lenet-5-caffe-dns": {
            "error": 0.91, "sparsity.conv1": 86.0, "sparsity.conv2": 97.0, "sparsity.fc1": 99.3,
            "sparsity.fc2": 96.0, "compression": 111,
        },
        "table1.lenet-5-caffe-sws": {"error": 0.97, "compression": 200},
        "table1.lenet-5-caffe-sparse": {
            "error": 0.75, "sparsity.conv1": 67.0, "sparsity.conv2": 98.0, "sparsity.fc1": 99.8,
            "sparsity.fc2": 95.0, "compression": 280,
        },
        "random-labels.mnist-dropout": {"train_accuracy": 100, "test_accuracy": 10},
        "random-labels.mnist-sparse": {
            "train_accuracy": 10, "test_accuracy": 10, "sparsity": 100,
        },
        "random-labels.cifar10-dropout": {"train_accuracy": 100, "test_accuracy": 10},
        "random-labels.cifar10-sparse": {
            "train_accuracy": 10, "test_accuracy": 10, "sparsity": 100,
        },
        "linear.mnist-sparse": {"test_accuracy": 92.6, "sparsity": 69.8},
        "linear.mnist-l1": {"test_accuracy": 91.9, "sparsity": 57.8},
        "linear.digits-sparse": {"test_accuracy": 94.8, "sparsity": 75.4},
        "linear.digits-l1": {"test_accuracy": 95.5, "sparsity": 38.0},
        "linear.digits-rvm": {"test_accuracy": 94.5, "sparsity": 74.6},
        "linear.digits-noise-sparse": {"test_accuracy": 93.0, "sparsity": 87.6},
        "linear.digits-noise-l1": {"test_accuracy": 93.7, "sparsity": 55.9},
        "linear.digits-noise-rvm": {"test_accuracy": 84.6, "sparsity": 85.7},
        "later.mini-printed": {
            "test_accuracy": 98.4, "sparsity.fc1": 97.4, "sparsity.fc2": 78.4, "compression": 35.6,
        },
        "later.mini-good": {
            "test_accuracy": 98.3, "sparsity.fc1": 96.9, "sparsity.fc2": 76.0, "compression": 30.1,
        },
        "later.seminar": {
            "sparsity.fc1": 97.0, "sparsity.fc2": 94.8, "sparsity.fc3": 60.0, "compression": 32.9,
        },
    },
    "pact": {
        "table1.r32-tau1e-2": {"mode_gap": "close"},
        "table1.r110-tau1e-3": {"mode_gap": "close"},
        "figure.relaxation-1344": {"latents": 1344},
        "figure.reinforce-1344": {"latents": 1344},
    },
}  # fmt: skip
# Tables of many rows were transcribed twice, by two programs; the digest keeps what agreed.
VERIFIED_DIGESTS = {
    "tta": "7c158b8e24951c81",
    "gps": "d57a421e6bed0652",
    "metta": "500ff39a6550c15f",
    "meta_layer": "823d6911a1d9a971",
    "zoo": "174f2b4bfcb68aa1",
    "dwp": "f480671a8e004423",
}
# Some of them, for people.
VERIFIED_EXAMPLES = {
    "tta": {("imagenet.resnet50-de-tta", "error.50"): 19.39},
    "gps": {("cifar10c.wrn28x10-gps", "muce.100"): 6.71},
    "metta": {("imagenet.simclr-resnet50-1x", "top1.32"): 73.8},
    "meta_layer": {("test2.head", "accuracy"): 84.25, ("test2.head", "parameters"): 292961},
    "dwp": {("mnist.n50-dwp", "accuracy"): 80.0, ("mnist.n1000-standard-normal", "accuracy"): 95.9},
    "zoo": {
        ("densenet.40-k12-c10-plus", "error"): 5.24,
        ("characters.ptb-lstm-1000", "bits"): 1.312,
    },
}
# Measured only with trained weights and a prepared data set, which a run is given by a flag.
WITH_WEIGHTS = {"top5_error", "top5_increase"}
# Measured only by runs that are so long.
AFTER_EPOCHS = {"sparsity.epoch2", "sparsity.epoch54"}

each_paper = pytest.mark.parametrize("name", sorted(papers()))
each = pytest.mark.parametrize("experiment", experiments().values(), ids=lambda e: e.id)


@each_paper
def test_only_what_was_read_in_a_source_is_tagged_verified(name):
    rows = load_paper(name).rows.values()
    tagged = {row.id: row.values for row in rows if row.tag == "verified" and row.values}
    if name in VERIFIED_DIGESTS:
        text = json.dumps(tagged, sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == VERIFIED_DIGESTS[name]
        for (row, measure), value in VERIFIED_EXAMPLES[name].items():
            assert tagged[row][measure] == value
        return
    # Rows that are not listed must have another tag.
    assert tagged == VERIFIED.get(name, {})


@each_paper
def test_every_value_is_measured_by_an_experiment_or_says_why_not(name):
    paper = load_paper(name)
    owners = {e.row: e for e in papers()[name].experiments}
    for row in paper.rows.values():
        wanted = {m for m in row.values if not paper.measures[m].unmeasured}
        if row.id in owners:
            assert wanted <= set(owners[row.id].measures), row.id
        elif not row.unmeasured:
            # A method that the paper cites is named with its year.
            assert re.search(r"\b(19|20)\d\d\b", row.method), row.id


@each
def test_declared_measures_choices_and_recipes_exist(experiment):
    paper = load_paper(experiment.paper)
    measures = set(experiment.measures)
    assert measures <= set(paper.measures)
    assert set(experiment.chosen) <= measures
    flags = config_lib.flat(config_lib.to_dict(experiment.presets["paper"].config))
    for name in experiment.recipe:
        assert name in flags
        assert not is_recipe(name), f"{name} is part of every recipe"


@pytest.mark.parametrize("record", collect([PUBLISHED]), ids=lambda r: f"{r.experiment}-{r.seed}")
def test_published_records_have_the_declared_measures(record):
    missing = set(experiments()[record.experiment].measures) - set(record.metrics)
    assert missing <= WITH_WEIGHTS | AFTER_EPOCHS


@pytest.mark.parametrize(
    ("name", "defines"),
    [
        ("sact.cifar10.r32-sact-tau1e-2:halting.tau", True),
        ("sact.cifar10.r32-sact-tau1e-2:halting.eps", True),
        ("sact.cifar10.r32-sact-tau1e-2:halting.tau_ramp", False),
        ("sact.cifar10.r32-sact-tau1e-2:data.batch_size", False),
        ("pact.figure.relaxation-3:halting.groups", True),
        ("pact.figure.relaxation-3:halting.width", True),
        ("pact.figure.relaxation-3:halting.temperature", True),
        ("perforated_cnn.table1.nin:network.dropout_rate", False),
        ("perforated_cnn.table3.nin-cpu-2x:search.target", True),
        ("perforated_cnn.table3.nin-cpu-2x:search.kinds", True),
        ("perforated_cnn.table3.vgg16-cpu-2x:rule.reduction", True),
        ("perforated_cnn.table2.alexnet-conv2-4of5:rule.rate", True),
        ("perforated_cnn.figure.single-layer-impact:layer.kind", True),
        ("sparse_vd.table1.lenet-5-caffe-sparse:variational.threshold", True),
        ("sparse_vd.table1.lenet-5-caffe-sparse:variational.kl_full", False),
    ],
)
def test_the_values_that_define_a_row(name, defines):
    experiment, _, flag = name.partition(":")
    found = experiments()[experiment]
    assert flag in config_lib.flat(config_lib.to_dict(found.presets["paper"].config))
    assert is_recipe(flag, found.recipe) is not defines


@each_paper
def test_tables_and_figures_never_show_another_row_as_the_row(name):
    """Every part and figure is drawn from runs of other rows alone; what names them says so."""
    flags = (
        "rule.falloff",
        "halting.bias",
        "search.target",
        "layer.rates",
        "variational.kl_weight",
        "views.padding",
        "pool.operations",
        "embedding.layer",
        "network.scrambled",
        "network.head",
        "network.last_survival",
        "images.distortion",
        "data.vocabulary",
        "sources.penalty",
        "prior.log_variance",
        "kernels.draw",
    )
    content = []
    published = [record for record in collect([PUBLISHED]) if record.paper == name]
    if not published:
        pytest.skip(f"{name} has no published record")
    for record in published:
        values = config_lib.flat(record.config)
        changed = [flag for flag in flags if flag in values]
        if changed:
            edited = {**record.content, "changed": changed, "config_hash": "0123"}
            content.append(Record(edited, record.path))
    assert content
    entry = papers()[name]
    for part, render in entry.load("tables").PARTS.items():
        for line in render(content).splitlines():
            stated = "changed: " in line or any(f"{flag}=" in line for flag in flags)
            # Numbers of the paper itself.
            stated |= part.endswith("-paper") or line.startswith("| the paper")
            # A line with numbers is of a run.
            assert stated or "Not run" in line or not re.search(r"\| [\d–]", line), (part, line)
    for figure in entry.load("figures").figures(content):
        assert isinstance(figure, Missing) or any(f"{flag}=" in figure.runs for flag in flags)


def test_rows_whose_factor_is_our_target_are_marked():
    for experiment in experiments().values():
        flags = config_lib.flat(config_lib.to_dict(experiment.presets["paper"].config))
        measures = load_paper(experiment.paper).rows[experiment.row].values
        if flags.get("rule.reduction", 1) != 1 and "macs_reduction" in measures:
            assert "macs_reduction" in experiment.chosen, experiment.id
        if "search.target" in flags:
            target = {"time": "speedup", "macs": "macs_reduction"}[flags["search.cost"]]
            assert target in experiment.chosen, experiment.id


def test_titles_and_deviations_name_the_mask_that_runs():
    for experiment in experiments().values():
        flags = config_lib.flat(config_lib.to_dict(experiment.presets["paper"].config))
        row = load_paper(experiment.paper).rows[experiment.row]
        words = " ".join((experiment.title, *experiment.deviations)).lower()
        if flags.get("rule.layer"):
            assert f"{flags['rule.kind']} mask" in experiment.title
            assert "impact" not in row.method
        elif flags.get("rule.reduction", 1) != 1:
            named = {"grid": "masks are grids", "regular": "masks are regular grids"}
            assert named[flags["rule.kind"]] in words
        if "layer.kind" in flags:
            assert flags["layer.kind"] in row.method
