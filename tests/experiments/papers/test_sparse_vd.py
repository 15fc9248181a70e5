"""Sparse variational dropout: smoke runs, figures, and the numbers of the paper."""

from __future__ import annotations

import functools
import json
import typing

import numpy as np
import pytest
from records_for_tests import write_run

from adaptive_nets.layers.sparse_vd import Parameterisation
from adaptive_nets.runtime.errors import UserError
from experiments.__main__ import main
from experiments.papers.sparse_vd.configs import SparseVDConfig, VariationalConfig
from experiments.papers.sparse_vd.figures import figures
from experiments.report.charts import Figure, Missing
from experiments.suite import config as config_lib
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.records import ARRAYS, Record, read_record
from experiments.suite.registry import experiments, load_paper

# The first digits of the embedded files are enough for a test, and do not take as long.
FEW_DIGITS = (
    "--data.source",
    "embedded",
    "--data.train-limit",
    "4000",
    "--data.test-limit",
    "1000",
)

DENSE = "sparse_vd.table1.lenet-300-100-original"
SPARSE = "sparse_vd.table1.lenet-300-100-sparse"
LENET5 = "sparse_vd.table1.lenet-5-caffe-sparse"
RANDOM_DENSE = "sparse_vd.random-labels.mnist-dropout"
RANDOM_SPARSE = "sparse_vd.random-labels.mnist-sparse"


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder, with the embedded digits alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)

    def run(*arguments):
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# The others are the same code with other networks; the first sparse one is run by other tests too.
QUICKEST = {DENSE}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICKEST else pytest.mark.slow)
        for name, experiment in experiments().items()
        if experiment.paper == "sparse_vd"
    ],
)
def test_smoke(call, tmp_path, name):
    """Every experiment of digits runs on the embedded ones and leaves a whole record."""
    code, out, err = call("run", name, "--preset", "smoke", "--out", "run", *FEW_DIGITS)
    assert code == 0, err
    record = read_record(tmp_path / "run" / "seed0" / "record.json")
    experiment = experiments()[name]
    for measure in ("error", "nll", "train_accuracy", "file_size"):
        assert record.metric(measure) is not None
    # In sixty steps a dense network learns most digits, and nothing from random labels; noise that
    # is still to be learnt keeps the others from it.
    error, accuracy = record.metric("error").value, record.metric("train_accuracy").value
    if config_lib.group(experiment.presets["smoke"].config, "data").labels == "random":
        assert 75 < error < 100
        assert 5 < accuracy < 25
    elif name.endswith("-original"):
        assert error < 40
        assert accuracy > 60
    assert record.metric("error").count == 1000
    assert record.dataset["train"] == 4000
    assert not record.dataset["complete"]
    assert record.changed == ["data.test_limit", "data.train_limit"]
    assert len(record.code["commit"] or "0" * 40) == 40
    assert record.devices["count"] == 4
    assert record.config["schedule"]["length"] == "60 steps"
    assert record.history["test/error"][-1][0] == 60
    assert record.arrays()["first_layer"].ndim == 3
    if load_paper("sparse_vd").rows[experiment.row].values:
        assert "reduced" in out
    if name.endswith("-sparse"):
        assert record.metric("changed_by_export").value == 0
        assert 0 < record.metric("sparsity").value < 100
        assert {"sparsity", "kept_weights", "compression"} <= set(record.content["metrics"])
        assert record.arrays()["sweep_error"].shape == record.arrays()["sweep_threshold"].shape


def test_the_exported_network_predicts_the_same_when_evaluated(call, tmp_path):
    call(
        "run",
        SPARSE,
        "--preset",
        "smoke",
        "--schedule.length",
        "8 steps",
        "--data.source",
        "embedded",
        "--data.train-limit",
        "4000",
        "--out",
        "r",
    )
    record = read_record(tmp_path / "r" / "seed0" / "record.json")
    file = tmp_path / "r" / "seed0" / "pruned.safetensors"
    command = ("evaluate", "lenet_300_100", "--weights", file, "--data", "mnist", "--json")
    code, out, _ = call(*command)
    assert code == 0
    report = json.loads(out)
    assert report["error_percent"] == pytest.approx(record.metric("error").value)
    assert report["loss_nats"] == pytest.approx(record.metric("nll").value, rel=1e-5)
    assert report["stored_weights"] == record.metric("kept_weights").value
    assert report["file_bytes"] == record.metric("file_size").value == file.stat().st_size
    code, _, err = call("evaluate", "lenet5_caffe", "--weights", file, "--data", "mnist")
    assert code == 2
    assert err.count("\n") == 1
    assert "is of the network 'lenet_300_100'; expected one of 'lenet5_caffe'" in err


def layers_of(name: str) -> list[str]:
    if "lenet-5" in name:
        return ["conv1", "conv2", "fc1", "fc2"]
    return ["fc1", "fc2", "fc3", "fc4", "fc5"] if "random" in name else ["fc1", "fc2", "fc3"]


def make_outcome(name: str, seed: int, *, empty: bool) -> Outcome:
    """Returns a made-up outcome of the experiment."""
    sparse, layers = name.endswith("sparse"), layers_of(name)
    rng = np.random.default_rng(seed)
    metrics = {
        "error": Metric(1.9 + 0.05 * seed, "%", 10000),
        "train_accuracy": Metric(10.2 if sparse else 99.5, "%", 60000),
        "test_accuracy": Metric(10.0, "%", 10000),
        "compression": Metric(1.0, "x", 1, "every weight is kept"),
        "file_size": Metric(1070524.0, "bytes"),
    }
    shape = (20, 5, 5) if "lenet-5" in name else (40, 8, 8)
    arrays = {"first_layer": rng.normal(size=shape).astype(np.float16)}
    if "lenet-5" not in name:
        arrays["pixel_weights"] = rng.integers(0, 9, (8, 8)).astype(np.int32)
    if sparse:
        value, note = (None, "infinite: no weight is kept") if empty else (70.0 + seed, "")
        share = 100.0 if empty else 98.5
        metrics |= {f"sparsity.{layer}": Metric(share, "%", 1000) for layer in layers}
        metrics |= {
            "sparsity": Metric(share, "%", 3000),
            "compression": Metric(value, "x", 3000, note),
            "file_size": Metric(21000.0, "bytes"),
            "dense_file_size": Metric(1070548.0, "bytes"),
        }
        edges = np.linspace(-10, 10, 81)
        arrays |= {
            "sweep_threshold": np.arange(0, 6.5, 0.5),
            "sweep_error": np.full(13, 2.0),
            "sweep_sparsity": np.linspace(99.2, 98, 13) if not empty else np.full(13, 100.0),
            "log_alpha_edges": edges,
        }
        for layer in layers:
            arrays[f"log_alpha.{layer}"] = rng.integers(0, 100, 80)
    return Outcome(metrics, arrays, seconds=4000.0 + seed, steps=1000)


def make_curves(name: str, *, empty: bool, last: int = 1000) -> dict:
    steps = list(range(last // 10, last + 1, last // 10))
    curves = {
        "test/error": [[s, 0.1 / (1 + s / 100)] for s in steps],
        "test/nll": [[s, 0.3 / (1 + s / 100)] for s in steps],
        "train/nll": [[s, 0.0 if s == last else 0.2 / s] for s in steps],
        "train/error": [[s, 0.9] for s in steps],
    }
    if name.endswith("sparse"):
        for layer in ("", *(f"/{layer}" for layer in layers_of(name))):
            end = 1.0 if empty else 0.99
            curves[f"sparsity{layer}"] = [[s, end * s / last] for s in steps]
    return curves


def write_record(root, name, *, seed=0, empty=False, **options) -> Record:
    """Writes the record and arrays of one seed below a folder, and returns the record."""
    curves = make_curves(name, empty=empty)
    return write_run(
        root, name, make_outcome(name, seed, empty=empty), curves, seed=seed, **options
    )


@pytest.fixture
def write(tmp_path):
    """`write_record` below a folder of the test."""
    return functools.partial(write_record, tmp_path / "runs")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> list[Figure | Missing]:
    """Figures of two full networks, a quick run beside one of them, and random labels."""
    write = functools.partial(write_record, tmp_path_factory.mktemp("records"))
    return figures(
        [
            *(write(DENSE, seed=seed) for seed in range(2)),
            *(write(SPARSE, seed=seed) for seed in range(2)),
            write(SPARSE, preset="quick", complete=False),
            write(LENET5),
            write(RANDOM_DENSE),
            write(RANDOM_SPARSE, empty=True),
        ]
    )


def test_full_and_quick_runs_are_drawn_apart(drawn):
    of_network = [f for f in drawn if isinstance(f, Figure) and f.section == "LeNet-300-100"]
    assert {"paper" in f.runs for f in of_network if not f.folded} == {True}
    assert {"quick" in f.runs for f in of_network if f.folded} == {True}


def test_every_figure_has_its_numbers_and_stays_small(drawn):
    of_all = [f for f in drawn if isinstance(f, Figure)]
    titles = {f.title for f in of_all if f.section == "LeNet-300-100"}
    assert {"Learning curves", "Sparsity over training", "Pruning threshold"} <= titles
    for figure in of_all:
        assert figure.svg or figure.pictures
        assert figure.caption
        for row in figure.data.get("rows", ()):
            assert len(row) == len(figure.data["columns"])
        json.dumps(figure.data, allow_nan=False)
        assert all(len(svg) < 40_000 for svg in figure.svg)
    assert sum(len(svg) for figure in of_all for svg in figure.svg) < 400_000


def test_missing_figures_name_the_command_of_the_same_size(write):
    (missing,) = [
        f
        for f in figures([write(SPARSE)])
        if isinstance(f, Missing) and f.section == "LeNet-300-100"
    ]
    assert missing.commands == (f"adaptive-nets run {DENSE} --preset paper",)


def test_records_without_arrays_lose_only_the_figures_made_from_them(write):
    record = write(SPARSE)
    record.path.with_name(ARRAYS).unlink()
    titles = {f.title for f in figures([record]) if isinstance(f, Figure)}
    assert "Learning curves" in titles
    assert not titles & {"Pruning threshold", "Distribution of dropout rates", "First layer"}


def test_without_records_nothing_is_drawn():
    assert not any(isinstance(f, Figure) for f in figures([]))


def test_labels_of_curves_are_not_read_as_formulas(write):
    def edit(content):
        content["history"]["sparsity/$x$"] = content["history"]["sparsity/fc1"]

    found = figures([write(SPARSE, edit=edit)])
    drawn = [f for f in found if isinstance(f, Figure)]
    (figure,) = [f for f in drawn if f.title == "Sparsity over training"]
    assert "$x$" in figure.svg[0]


def test_the_variational_values_are_part_of_a_runs_identity():
    config = SparseVDConfig()
    other = SparseVDConfig(variational=VariationalConfig(threshold=2.0))
    first, second = config_lib.identity(config), config_lib.identity(other)
    assert config_lib.differences(first, second) == ["variational.threshold"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kl_start": "soon"}, "--variational.kl-start is 'soon'"),
        ({"kl_weight": -1.0}, "--variational.kl-weight is -1.0"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(UserError) as error:
        VariationalConfig(**values)
    assert str(error.value).startswith(message)


def test_show_tells_what_would_be_run(call):
    code, out, _ = call("show", SPARSE, "--preset", "quick")
    assert code == 0
    for text in (
        f"adaptive-nets run {SPARSE} --preset quick",
        "config.data.name\tmnist",
        "532810",
        "266200",
        "Learning rate and weight of the divergence",
        "paper.values.compression\t68",
    ):
        assert text in out


def test_the_sheets_own_consistency():
    """Compression follows from the sparsities of the layers, up to their rounding."""
    row = load_paper("sparse_vd").rows["table1.lenet-300-100-sparse"]
    weights = {"fc1": 235200, "fc2": 30000, "fc3": 1000}
    left = sum(n * (1 - row.values[f"sparsity.{k}"] / 100) for k, n in weights.items())
    assert sum(weights.values()) / left == pytest.approx(69.9, abs=0.1)
    assert row.values["compression"] == pytest.approx(69.9, rel=0.03)


def test_vgg_is_drawn_over_widths_beside_the_papers_points(tmp_path):
    names = [f"sparse_vd.vgg.cifar10-k{k}-{method}" for k in ("0p25", "1") for method in
             ("original", "sparse")]  # fmt: skip
    records = []
    for i, name in enumerate(names):
        metrics = {"error": Metric(10.0 + i, "%", 100), "compression": Metric(5.0 + i, "x", 100)}
        outcome = Outcome(metrics, {}, seconds=1.0, steps=2)
        records.append(write_run(tmp_path, name, outcome, {}, preset="day"))
    drawn_figures = [f for f in figures(records) if isinstance(f, Figure)]
    (figure,) = [f for f in drawn_figures if "over the width" in f.title]
    assert "CIFAR-10" in figure.title
    drawn = {(row[0], row[1], row[2]): row[3] for row in figure.data["rows"]}
    assert drawn["dense", "error", 0.25] == 10.0
    assert drawn["Sparse VD", "compression", 1.0] == 8.0
    assert len(drawn) == 6
    assert not [f for f in figures([]) if isinstance(f, Figure)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--network.width", "0.01"), "--network.width is 0.01; expected at least 1/64"),
        (("--start.weights", "nowhere"), "--start.weights is 'nowhere', which does not exist"),
        (("--variational.parameterisation", "both"), "parameterisation"),
    ],
)
def test_bad_vgg_flags_are_one_line(call, flags, message):
    code, _, err = call("run", "sparse_vd.vgg.cifar10-k1-sparse", "--preset", "smoke", *flags)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_flag_has_the_parameterisations_of_the_layers():
    """Configurations import no JAX, so the two lists are written twice."""
    flag = typing.get_type_hints(VariationalConfig)["parameterisation"]
    assert typing.get_args(flag) == typing.get_args(Parameterisation)
