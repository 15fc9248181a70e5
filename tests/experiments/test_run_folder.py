"""Folders of runs: damaged, refused, set aside; nothing in them is lost."""

from __future__ import annotations

import json

import pytest
from toy_papers import PRUNED

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import lock_directory
from experiments.__main__ import main
from experiments.suite.registry import find_experiment
from experiments.suite.run_folder import claimed_directory, set_aside

pytestmark = pytest.mark.usefixtures("toy_paper")


def claim(folder):
    experiment = find_experiment(PRUNED)
    config = experiment.presets["smoke"].config
    with lock_directory(folder), claimed_directory(folder, experiment, config, preset="smoke"):
        pass


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has begun."""
    folder = tmp_path / "r"
    claim(folder)
    (folder / "seed0").mkdir()
    (folder / "seed0" / "metrics.jsonl").write_text("")
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[1]", b"null", b"7", b'{"identity": {}}', b'{"experiment": "a"}',
        b'{"experiment": 3, "identity": {}}', b'{"experiment": "a", "identity": [1]}', b"[" * 10**5,
        b'{"experiment": "a", "identity": {"x": 1' + b"0" * 5000 + b"}}", "folder", "missing",
    ],
    ids=range(14),
)  # fmt: skip
def test_a_damaged_run_file_is_named_and_nothing_is_touched(run, content):
    path = run / "run.json"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content != "missing":
        path.write_bytes(content)
    before = names(run)
    with pytest.raises(UserError) as error:
        claim(run)
    assert "run.json" in str(error.value)
    assert "--out" in str(error.value)
    assert "--fresh" in str(error.value)
    assert names(run) == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_refused_run_leaves_the_folder_as_it_was(tmp_path, exists):
    folder = tmp_path / "new" / "r"
    if exists:
        folder.mkdir(parents=True)
    experiment = find_experiment(PRUNED)
    config = experiment.presets["smoke"].config

    def refuse():
        with (
            lock_directory(folder),
            claimed_directory(folder, experiment, config, preset="smoke"),
        ):
            (folder / "seed0").mkdir()
            raise UserError("refused")

    with pytest.raises(UserError, match="refused"):
        refuse()
    assert names(tmp_path) == (["new", "new/r"] if exists else [])


def test_a_foreign_folder_gets_no_lock(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\)"):
        claim(tmp_path)
    assert names(tmp_path) == ["thesis.tex"]


def test_an_earlier_run_is_moved_beside_its_folder(run):
    before = [name for name in names(run) if name != ".lock"]
    first = set_aside(run)
    assert first == run.with_name("r.earlier-1")
    assert names(first) == before
    assert [name for name in names(run) if name != ".lock"] == []
    assert set_aside(run) is None
    claim(run)
    assert set_aside(run) == run.with_name("r.earlier-2")


def test_files_that_are_not_of_a_run_are_not_moved(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"--fresh: .* holds other files \(thesis\.tex\)"):
        set_aside(tmp_path)
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("command", ["show", "list", "table", "run"])
def test_the_folder_of_a_run_is_no_id(run, command, capsys):
    assert main([command, str(run)]) == 2
    err = capsys.readouterr().err.strip()
    assert f"{str(run)!r}" in err
    assert "it is the folder of a run; expected an id" in err
    assert "\n" not in err


def test_a_damaged_record_is_named_and_a_fresh_run_replaces_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", PRUNED, "--preset", "smoke", "--out", "r"]
    assert main(arguments) == 0
    record = tmp_path / "r" / "seed0" / "record.json"
    record.write_text(record.read_text()[:100])
    capsys.readouterr()
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "record r/seed0/record.json cannot be read" in err
    assert "move it away and run the same command to measure this seed again" in err
    assert main([*arguments, "--fresh"]) == 0
    assert json.loads(record.read_text())["experiment"] == PRUNED
    aside = tmp_path / "r.earlier-1" / "seed0" / "record.json"
    assert len(aside.read_text()) == 100
