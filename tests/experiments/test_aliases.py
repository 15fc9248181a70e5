"""Earlier ids of experiments still answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from records_for_tests import made_up, write

from experiments.commands.run import default_folder
from experiments.suite.records import collect
from experiments.suite.registry import canonical, experiments, find_experiment, select

RENAMED = [(alias, e) for e in experiments().values() for alias in e.aliases]


@pytest.mark.parametrize(("alias", "experiment"), RENAMED, ids=[alias for alias, _ in RENAMED])
def test_an_earlier_id_finds_the_experiment(alias, experiment):
    assert find_experiment(alias) is experiment
    assert canonical(alias) == experiment.id
    # A short name may also begin the ids of its neighbours.
    found = select(alias)
    assert experiment in found
    assert all(e is experiment or e.id.startswith(f"{alias}.") for e in found)
    assert alias not in experiments()


def test_a_record_with_an_earlier_id_counts_for_the_experiment(tmp_path):
    alias, experiment = RENAMED[0]
    record = made_up(experiment.id, error=1.0)
    write({**record, "experiment": alias}, tmp_path)
    (found,) = collect([tmp_path])
    assert found.experiment == experiment.id
    assert json.loads(found.path.read_text())["experiment"] == alias


def test_a_run_under_an_earlier_id_is_resumed_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alias, experiment = RENAMED[0]
    assert default_folder(experiment, "quick") == Path("runs", experiment.id, "quick")
    Path("runs", alias, "quick").mkdir(parents=True)
    assert default_folder(experiment, "quick") == Path("runs", alias, "quick")
