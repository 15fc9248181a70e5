"""Every experiment: two steps on synthetic data, interrupted and resumed, and what is rendered."""

from __future__ import annotations

import datetime
import re

import jax
import numpy as np
import pytest
from conftest_training import StopAt

from adaptive_nets.data import Dataset, Split
from adaptive_nets.data.catalogue import lookup
from adaptive_nets.data.sequences import PARITY
from adaptive_nets.models import model_entry
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.runtime.progress import SilentProgress
from experiments.commands.parsing import parse
from experiments.commands.run import form_with_config_flags
from experiments.report import page
from experiments.suite import execution
from experiments.suite.comparison import compare
from experiments.suite.records import Record
from experiments.suite.registry import experiments, papers
from experiments.suite.render import markdown_cells

# Small enough for every run of the tests; the others are slow.
QUICK = {
    "lenet_300_100",
    "lenet_300_100_sparse_vd",
}
NOON = datetime.datetime(2025, 3, 6, 12, tzinfo=datetime.UTC)
# Names of measures that the clock decides.
TIMED = re.compile(r"speed|second|efficiency|time|input_wait")


def values(config) -> dict:
    """The values of a configuration by flag, whatever its groups."""
    from experiments.suite import config as config_lib

    return config_lib.flat(config_lib.to_dict(config))


def is_quick(experiment) -> bool:
    name = values(experiment.presets["smoke"].config).get("model.name")
    # What stands in no table of its paper has tests of its own, of its runner or of its form.
    return name in QUICK and experiment.row.startswith("table")


def synthetic(name: str) -> Dataset:
    """Random images of a data set's real shape, 256 for training and 64 for tests."""
    info = lookup(name)
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, *info.image_shape)).astype(np.uint8)
        return Split(images, rng.integers(0, info.num_classes, count).astype(np.int32))

    return Dataset(
        name=name,
        source="files",
        location="memory",
        num_classes=info.num_classes,
        class_names=tuple(map(str, range(info.num_classes))),
        train=split(256),
        test=split(64),
        fingerprint="0" * 64,
        complete=False,
    )


def two_steps(experiment):
    """Its configuration of the preset smoke, two steps long, with a checkpoint after each."""
    config = experiment.presets["smoke"].config
    flags = {
        "schedule.length": "2 steps",
        "data.batch_size": "16",
        "data.eval_batch_size": "32",
        "run.checkpoint_every": "1 steps",
        "run.eval_every": "1 steps",
        "run.log_every": "1 steps",
    }
    known = values(config)
    given = [
        word
        for name, value in flags.items()
        if name in known
        for word in ("--" + name.replace("_", "-"), value)
    ]
    form = form_with_config_flags(config)
    return parse(form, [experiment.id, *given], program="test").values


def run(experiment, config, out, progress=None) -> Record:
    (record,) = execution.execute(
        experiment,
        preset="smoke",
        config=config,
        seeds=1,
        out=out,
        data_dir=None,
        progress=progress or SilentProgress(),
        announce=lambda line: None,
    )
    return record


def assert_same(whole: Record, parts: Record) -> None:
    """Metrics, curves, arrays and trained networks agree to the last bit."""
    first, second = (
        {name: m for name, m in r.content["metrics"].items() if not TIMED.search(name)}
        for r in (whole, parts)
    )
    assert first == second
    curves, others = (
        {name: curve for name, curve in r.history.items() if not TIMED.search(name)}
        for r in (whole, parts)
    )
    assert curves == others
    for name, array in whole.arrays().items():
        if not TIMED.search(name):
            np.testing.assert_array_equal(array, parts.arrays()[name])
    # A run of several networks has a folder for each.
    folder = whole.path.parent
    files = sorted(folder.rglob("*.safetensors"))
    for file in files:
        assert file.read_bytes() == (parts.path.parent / file.relative_to(folder)).read_bytes()
    if whole.steps:
        assert whole.steps == 2
        assert files or whole.history


def assert_rendered(experiment, record: Record) -> None:
    """The record's numbers stand in the paper's table, and the page of the experiment is drawn."""
    tables = compare([experiment], [record])
    cells = [cell for table in tables.values() for cell in table]
    for table in tables.values():
        assert markdown_cells(table).count("\n") == len(table) + 2
    row = papers()[experiment.paper].values.rows[experiment.row]
    ours = [c for c in cells if c.row.id == row.id and c.verdict in ("reduced", "chosen")]
    measured = {cell.measure.name for cell in ours}
    # With random weights there are no errors on ImageNet.
    # Not without trained weights, or before the epoch is reached.
    assert set(experiment.measures) - set(record.metrics) <= {
        "top5_error", "top5_increase", "sparsity.epoch2", "sparsity.epoch54",
    }  # fmt: skip
    assert measured == {name for name in row.values if record.metric(name) is not None}
    figures = papers()[experiment.paper].load("figures").figures([record])
    assert all(figure.section for figure in figures)
    text = page.render([record], rendered=NOON, experiments=[experiment])
    assert "The figures are left out" not in text
    assert experiment.id in text


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(e, id=e.id, marks=() if is_quick(e) else pytest.mark.slow)
        for e in experiments().values()
    ],
)
def test_two_steps_an_interruption_and_what_is_rendered(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load = lambda name, **options: synthetic(name)  # noqa: E731
    monkeypatch.setattr(execution, "load", load)
    config = two_steps(experiment)
    device = next((v for name, v in values(config).items() if name.endswith(".device")), "cpu")
    if device not in ("cpu", jax.default_backend()):
        with pytest.raises(UserError, match=f"device is '{device}', but JAX runs on"):
            run(experiment, config, tmp_path / "whole")
        return
    whole = run(experiment, config, tmp_path / "whole")
    if whole.steps:
        with pytest.raises(Interrupted) as stopped:
            run(experiment, config, tmp_path / "parts", StopAt(1))
        assert stopped.value.step == 1
    assert_same(whole, run(experiment, config, tmp_path / "parts"))
    assert_rendered(experiment, whole)


def test_synthetic_data_have_the_shapes_of_the_networks():
    for experiment in experiments().values():
        known = values(experiment.presets["smoke"].config)
        name, model = known.get("data.name"), known.get("model.name")
        if name is None or model is None or name == PARITY or lookup(name).streamed:
            continue
        height, width, channels = lookup(name).image_shape
        padded = 2 * known.get("images.padding", 0)
        assert (height + padded, width + padded, channels) == model_entry(model).input_shape
