"""The Meta study: sizes, the authors' accuracy, claims, bad input, smoke runs, tables."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import write_run
from scipy import stats

import experiments.papers.meta_layer as package
from adaptive_nets.analysis.macs import count_cost
from adaptive_nets.data import Dataset, Split
from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models import create_model
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights.stored import load_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.evaluation import make_evaluate
from adaptive_nets.training.task import Task
from experiments.papers.meta_layer import experiment as runner
from experiments.papers.meta_layer import measures
from experiments.papers.meta_layer.configs import EXPERIMENTS, VARIANTS
from experiments.papers.meta_layer.fields import NetworkConfig, StudyConfig
from experiments.papers.meta_layer.figures import PICTURES, figures
from experiments.papers.meta_layer.low_rank import LowRankHead, merged
from experiments.papers.meta_layer.tables import PARTS
from experiments.report.charts import Figure, Missing
from experiments.shared.comparisons import compared, within
from experiments.shared.paired import paired_difference
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.records import Record
from experiments.suite.registry import find_experiment, load_paper

CONV2D, META, HEAD = (f"meta_layer.test1.{kind}" for kind in ("conv2d", "meta", "head"))
IMAGE = (32, 32, 3)
# Sizes of the parts of each test's networks, of the whole, in the order of the kinds.
STEMS = {1: 1_094, 2: 23_811 + 74_113, 3: 5_186 + 18_625}
UNITS = {
    1: (4_705, 61, 661, 4_705),
    2: (37_057 + 147_841, 889 + 3_505, 4_937 + 10_129, 37_057 + 147_841),
    3: tuple(16 * (a + b) for a, b in ((18_626, 74_114), (9_758, 37_502), (10_634, 41_930))),
}
HEADS = {1: (82_371, 20_951), 2: (74_443, 10_139), 3: (66_251, 9_115)}


@pytest.mark.parametrize(
    "experiment",
    [
        # The larger networks take seconds to trace; one stands for all.
        pytest.param(
            e, marks=pytest.mark.slow if "test3" in e.id and e.id != "meta_layer.test3.meta" else ()
        )
        for e in EXPERIMENTS
    ],
    ids=lambda e: e.id,
)
def test_sizes_are_exactly_those_of_the_paper(experiment):
    rows = load_paper("meta_layer").rows
    row, config = rows[experiment.row], experiment.presets["paper"].config
    found = runner.size_metrics(config, 10, IMAGE)
    assert found["parameters"].value == row.number("parameters")
    derived = rows.get(f"derived.{row.id}")
    macs = row.number("macs") if derived is None else derived.number("macs")
    assert macs in (None, found["macs"].value)


def value(row: str, measure: str) -> float:
    number = load_paper("meta_layer").rows[row].number(measure)
    assert number is not None
    return number


@pytest.mark.parametrize("test", STEMS)
def test_the_parts_add_up_and_the_derived_values_follow(test):
    base = f"test{test}.conv2d"
    for i, kind in enumerate(("conv2d", "conv3d", "meta", "head")):
        row, derived = f"test{test}.{kind}", f"derived.test{test}.{kind}"
        unit = UNITS[test][i if i < len(UNITS[test]) else 0]
        head = HEADS[test][kind == "head"]
        assert value(row, "parameters") == STEMS[test] + unit + head
        stored = value(f"stored.{row}", "stored")
        assert stored * 79 * 128 == pytest.approx(value(derived, "numerator"), abs=1e-9)
        assert value(row, "accuracy") == pytest.approx(100 * stored, abs=0.0051)
        if kind != "conv2d":
            for measure, own, of in (
                ("parameters", row, base),
                ("macs", derived, f"derived.{base}"),
            ):
                change = 100 * (value(own, measure) / value(of, measure) - 1)
                assert value(derived, f"{measure}_change") == pytest.approx(change, abs=0.05)
            difference = value(row, "accuracy") - value(base, "accuracy")
            assert value(derived, "accuracy_change") == pytest.approx(difference, abs=1e-9)


def test_ratios_of_the_efficiency_claim():
    for kind in ("head", "conv2d"):
        ratio = value(f"test3.{kind}", "parameters") / value("test2.head", "parameters")
        assert value(f"derived.efficiency.{kind}", "ratio") == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize(("count", "batch"), [(300, 128), (256, 128), (10, 4), (3, 128)])
def test_the_authors_accuracy_is_the_mean_over_batches(count, batch, rng):
    correct = rng.integers(0, 2, count)
    starts = range(0, count, batch)
    expected = np.mean([correct[start : start + batch].mean() for start in starts])
    shares = measures.batch_shares(count, batch_size=batch)
    assert shares.sum() == pytest.approx(len(starts), rel=1e-6)
    assert np.average(correct, weights=shares) == pytest.approx(expected, rel=1e-6)


class Lookup:
    """Network whose logits are the pixels."""

    def apply(self, variables, x, train):
        return x[:, 0, :, 0]


@pytest.mark.parametrize("eval_batch", [7, 128, 1000])
def test_the_evaluation_gives_it_at_every_batch_size(eval_batch, rng):
    images = rng.integers(0, 256, (300, 1, 4, 1)).astype(np.uint8)
    labels = rng.integers(0, 4, 300).astype(np.int32)
    shares = measures.batch_shares(300)
    arrays = {"image": images, "label": labels, measures.SHARE: shares}
    ones = np.ones((1, 1, 1), np.float32)
    split = DeviceSplit(
        {name: jnp.asarray(array) for name, array in arrays.items()}, 0 * ones, ones, ones[0, 0, 0]
    )
    task = Task(Lookup(), lambda timing: None, measures.batch_mean_measures)  # pyright: ignore
    found = make_evaluate(task, batch_size=eval_batch)({}, split)
    correct = images[:, 0, :, 0].argmax(axis=1) == labels
    batches = [correct[start : start + 128].mean() for start in (0, 128, 256)]
    assert found["batch_mean_accuracy"] == pytest.approx(np.mean(batches), rel=1e-6)
    assert found["error"] == pytest.approx(1 - correct.mean(), rel=1e-6)
    plain = dataclasses.replace(
        split, arrays={n: a for n, a in split.arrays.items() if n != measures.SHARE}
    )
    assert "batch_mean_accuracy" not in make_evaluate(task, batch_size=eval_batch)({}, plain)


def small_set(train: int = 64, test: int = 144) -> Dataset:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, *IMAGE)).astype(np.uint8)
        return Split(images, rng.integers(0, 10, count).astype(np.int32))

    return Dataset(
        name="cifar10", source="files", location="memory", num_classes=10,
        class_names=tuple(map(str, range(10))), train=split(train), test=split(test),
        fingerprint="0" * 64, complete=False,
    )  # fmt: skip


def run(config: StudyConfig, directory: Path, dataset: Dataset | None = None) -> Outcome:
    return runner.run(
        config, dataset=dataset or small_set(), directory=directory, seed=0,
        progress=SilentProgress(), title="study",
    )  # fmt: skip


@pytest.mark.slow
def test_smoke_run_measures_every_evaluation(tmp_path):
    outcome = run(find_experiment(META).presets["smoke"].config, tmp_path)
    arrays, metrics = outcome.arrays, outcome.metrics
    assert arrays["epoch"].tolist() == [0.25, 0.5]
    assert arrays["accuracy"].shape == arrays["test_nll"].shape == (2,)
    assert arrays["train_nll"].shape == (2,)
    assert metrics["accuracy"].value == arrays["accuracy"].max()
    assert metrics["last_accuracy"].value == arrays["accuracy"][-1]
    assert metrics["best_plain_accuracy"].value == arrays["plain_accuracy"].max()
    assert metrics["test_accuracy"].value == pytest.approx(arrays["plain_accuracy"][-1])
    assert metrics["parameters"].value == 84_126
    assert metrics["macs"].value == 1_288_592
    # The whole images of the authors' batches: 128, and 16 of the last one.
    eighths = arrays["accuracy"] / 100 * 2 * 128
    np.testing.assert_allclose(eighths, np.round(eighths), atol=1e-3)
    again = run(find_experiment(META).presets["smoke"].config, tmp_path)
    assert again.metrics == metrics


@pytest.mark.slow
def test_a_network_of_low_rank_is_exported_as_a_dense_one(tmp_path):
    config = find_experiment("meta_layer.variants.test1-head-rank10").presets["smoke"].config
    run(config, tmp_path)
    stored = load_network(tmp_path / "network.safetensors")
    expected = abstract_variables(create_model("meta_study_conv2d_1"), IMAGE)
    shapes = jax.tree.map(np.shape, stored.variables["params"])
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, expected["params"])
    kernel = stored.variables["params"]["head"]["fc1"]["kernel"]
    assert np.linalg.matrix_rank(kernel) == 10


def test_the_product_of_the_factors_is_the_dense_layer(key):
    head = LowRankHead(3, 40, 10)
    x = jax.random.normal(key, (2, 4, 4, 5))
    variables = jax.device_get(head.init(key, x))
    dense = merged({"params": {"head": variables["params"]}})["params"]["head"]
    assert dense["fc1"]["kernel"].shape == (80, 40)
    features = np.asarray(x).transpose(0, 3, 1, 2).reshape(2, -1)
    hidden = features @ dense["fc1"]["kernel"] + dense["fc1"]["bias"]
    hidden = np.where(hidden >= 0, hidden, 0.25 * hidden)
    expected = hidden @ dense["fc2"]["kernel"] + dense["fc2"]["bias"]
    np.testing.assert_allclose(np.asarray(head.apply(variables, x)), expected, rtol=1e-4, atol=1e-5)


def changed(name: str, model: str = "", **network) -> StudyConfig:
    config = find_experiment(name).presets["smoke"].config
    train = config.train
    if model:
        train = dataclasses.replace(train, model=dataclasses.replace(train.model, name=model))
    return StudyConfig(train, NetworkConfig(**network))


TEXT_CONV3D = "meta_layer.variants.test1-conv3d-text-s2"
CASES = {
    "a head that does not divide": (
        lambda: changed(HEAD, groups=3),
        "--network.groups 3: groups 3 must divide the number of channels, 2048",
    ),
    "a text head that does not divide": (
        lambda: changed(HEAD, form="text", groups=16),
        "--network.form text --network.groups 16: groups is 16; expected a divisor of the head's",
    ),
    "filters that do not divide": (
        lambda: changed(TEXT_CONV3D, form="text", filters=3),
        "--network.form text --network.filters 3: filters 3 cannot make 32 maps of 16 channels",
    ),
    "filters of the code form": (
        lambda: changed(TEXT_CONV3D, filters=4),
        "--network.filters 4: filters is 4 with form 'code'; expected form='text'",
    ),
    "an option of another network": (
        lambda: changed(CONV2D, scrambled=False),
        "--network.scrambled False: model 'meta_study_conv2d_1' takes no 'scrambled'",
    ),
    "low rank of a Meta head": (
        lambda: changed(HEAD, head="low_rank", rank=4),
        "--model.name is 'meta_study_head_1'; expected meta_study_conv2d_1, ",
    ),
    "low rank and another option": (
        lambda: changed(CONV2D, head="low_rank", rank=4, form="text"),
        "--network.form is 'text'; expected the default, since --network.head is low_rank",
    ),
    "no rank": (lambda: NetworkConfig(head="low_rank"), "--network.rank is 0; expected a rank of"),
    "a rank alone": (lambda: NetworkConfig(rank=4), "--network.rank is 4; expected 0, since"),
    "not a head": (lambda: changed(HEAD, groups=-1), "--network.groups is -1; expected"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line(case, tmp_path):
    make, message = CASES[case]
    with pytest.raises(UserError) as caught:
        run(make(), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_streamed_data_set_is_refused(tmp_path):
    config = find_experiment(CONV2D).presets["smoke"].config
    streamed = dataclasses.replace(small_set(), train=None, test=None)
    with pytest.raises(UserError, match=r"--data\.name is 'cifar10'; expected a data set in"):
        run(config, tmp_path, streamed)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((-2.0, -2.1, -2.2), "holds"),
        ((-6.0, -6.1, -6.2), "does not hold"),
        ((-1.0, -1.1, -1.2), "undecided"),
        ((-2.0,), "undecided (one seed)"),
    ],
)
def test_verdicts(values, verdict):
    difference = paired_difference(dict(enumerate(values)), dict.fromkeys(range(9), 0.0))
    assert difference is not None
    assert within(difference, -5, -1) == verdict


def made_up(accuracy: float) -> tuple[Outcome, dict]:
    metrics = {
        "accuracy": Metric(accuracy, "%", 10_000),
        "last_accuracy": Metric(accuracy - 0.5, "%", 10_000),
        "test_accuracy": Metric(accuracy - 0.6, "%", 10_000),
        "parameters": Metric(26_750.0, "parameters"),
        "macs": Metric(2_251_312.0, "MACs"),
    }
    curves = {
        "test/batch_mean_accuracy": [[468, 0.6], [936, accuracy / 100]],
        "test/nll": [[468, 1.1], [936, 1.0]],
        "train/nll": [[468, 1.2], [936, 0.9]],
    }
    return Outcome(metrics, {}, seconds=1.0, steps=936), curves


# Over the seeds of both, 0 to 2, the head is better by 0.2, 0.5 and 0.8 points.
BASELINE, OURS = (72.0, 72.5, 73.0, 70.0), (72.2, 73.0, 73.8)


@pytest.fixture
def records(tmp_path):
    return [
        write_run(tmp_path, name, *made_up(value), seed=seed)
        for name, values in ((CONV2D, BASELINE), (HEAD, OURS))
        for seed, value in enumerate(values)
    ]


def test_claims_compare_the_seeds_that_both_have(records):
    half = stats.t.ppf(0.975, 2) * 0.3 / math.sqrt(3)
    found = compared(records, HEAD, CONV2D, "accuracy")
    assert found is not None
    assert found[0].count == 3
    assert found[0].mean == pytest.approx(0.5)
    assert found[0].interval() == pytest.approx((0.5 - half, 0.5 + half))
    interval = f"+0.50 [{0.5 - half:+.2f}, {0.5 + half:+.2f}]"
    (line,) = [text for text in PARTS["claims"](records).splitlines() if interval in text]
    assert line.count(interval) == 2
    assert "| Test 1, Meta head | -69.7 % | -0.82 |" in line
    assert "3 in both | undecided |" in line
    assert PARTS["claims"](records).count("Not run") == 10


def test_the_results_have_the_articles_numbers_beside_ours(records):
    text = PARTS["heads"](records)
    assert "| 71.98 | 73.00 ± 0.80 | 72.50 ± 0.80 | 72.40 ± 0.80 | preset paper, 3 seeds" in text
    assert "| differs (1.02 percentage points above the paper) |" in text
    assert "| Test 1, Conv2d | 88,170 | 26,750 | 2,312,592 | 2,251,312 | 72.80 | 71.88" in text
    assert "84.27 (84.23 in the notebook)" in PARTS["convolutions"](records)
    assert "84.23" in text


def test_a_variant_is_compared_with_both_networks(records, tmp_path):
    name = next(v.id for v in VARIANTS if v.name == "head-identity" and v.test == 1)
    own = [write_run(tmp_path, name, *made_up(v), seed=s) for s, v in enumerate((71.9, 72.9, 73.3))]
    (line,) = [
        text for text in PARTS["variants"]([*records, *own]).splitlines() if "preset paper" in text
    ]
    numbers = re.findall(r"\| ([+-]\d\.\d\d) \[", line)
    assert numbers == ["+0.20", "-0.30"]


def test_runs_of_other_sizes_are_never_compared(records, tmp_path):
    quick = write_run(tmp_path, META, *made_up(60.0), preset="quick", complete=False)
    assert compared([*records, quick], META, CONV2D, "accuracy") is None


def test_runs_of_another_network_are_shown_nowhere(records):
    """The article has no numbers of them; every line with numbers says that it was not run."""
    other = [
        Record({**r.content, "changed": ["network.scrambled"], "config_hash": "0123"}, r.path)
        for r in records
    ]
    for part in PARTS.values():
        assert part(other) == part([])
        for line in part(other).splitlines():
            assert "Not run" in line or not re.search(r"\| [\d–]", line)
    assert all(isinstance(figure, Missing) for figure in figures(other))


def test_figures_show_every_network(records):
    drawn = figures(records)
    shown = [figure for figure in drawn if isinstance(figure, Figure)]
    assert [f.title for f in shown] == ["Accuracy over parameters and MACs", "Learning curves"]
    assert len(shown[0].svg) == len(shown[1].svg) == 2
    assert [row[:2] for row in shown[0].data["rows"]] == [[1, "Conv2d"], [1, "Meta head"]]
    missing = [figure for figure in drawn if isinstance(figure, Missing)]
    assert [len(note.commands) for note in missing] == [2, 4, 4]
    assert all(figure.section for figure in drawn)
    assert PICTURES["meta-layer-accuracy.svg"](records).startswith("<svg")
    assert "meta-layer-accuracy.svg" in PARTS["picture"](records)


def test_without_records_tables_and_pictures_say_so():
    for name in ("convolutions", "heads", "variants"):
        lines = PARTS[name]([]).splitlines()[2:]
        assert lines
        assert all(line.endswith("| Not run |") for line in lines)
    assert PARTS["picture"]([]) == "Not run: there is no record.\n"
    assert all(draw([]) == "" for draw in PICTURES.values())
    assert all(isinstance(figure, Missing) for figure in figures([]))


def test_every_variant_can_be_counted_by_name():
    """The exported file names a network of the zoo and its options."""
    for variant in VARIANTS:
        if variant.network.head != "low_rank":
            name = f"meta_study_{variant.kind}_{variant.test}"
            row = load_paper("meta_layer").rows[variant.row]
            cost = count_cost(name, **variant.network.changes())
            assert cost.parameters == row.number("parameters")
        assert find_experiment(variant.reference)


def test_every_file_is_in_the_readme():
    assert package.__file__
    folder = Path(package.__file__).parent
    text = (folder / "README.md").read_text()
    for file in folder.glob("*"):
        if file.suffix in (".py", ".toml") and file.name != "__init__.py":
            assert f"| `{file.name}` |" in text
    for name in PARTS:
        assert f"<!-- begin meta_layer.{name} -->" in text
