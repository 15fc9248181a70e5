"""Commands that need no training, called as the console script calls them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from records_for_tests import SPARSE, made_up, write

from experiments.__main__ import COMMANDS, main, usage
from experiments.commands.parsing import parse
from experiments.registry import EXPERIMENTS


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; returns (code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)

    def run(*arguments):
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_usage_names_every_command(call):
    for arguments in ((), ("--help",), ("help",)):
        code, out, _ = call(*arguments)
        assert code == 0
        assert all(f"  {name}" in out for name in COMMANDS)
    assert usage() in out + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(call, capsys, name):
    try:
        code, out, _ = call(name, "--help")
    except SystemExit as stop:
        code, out = stop.code, capsys.readouterr().out
    assert code == 0
    assert f"adaptive-nets {name}" in out


def test_list_shows_cells_and_states(call):
    code, out, _ = call("list", "sparse_vd.table1*")
    assert code == 0
    for name in EXPERIMENTS:
        assert (name in out) == name.startswith("sparse_vd.table1")
    assert "Table 1: LeNet-300-100, Sparse VD" in out


def test_show_tells_what_would_be_run(call):
    code, out, _ = call("show", SPARSE, "--preset", "quick")
    assert code == 0
    for text in (
        f"adaptive-nets run {SPARSE} --preset quick",
        'schedule.length = "12000 steps"',
        "532,810",
        "266,200 MACs (532,400 FLOPs)",
        "Learning rate and weight of the divergence",
        "compression 68",
    ):
        assert text in out


def test_table_is_rendered_from_the_records_of_a_folder(call, tmp_path):
    write(made_up(error=1.91, compression=77.0), tmp_path / "mine")
    code, out, _ = call("table", "sparse_vd.table1.lenet-300-100-sparse", "--results", "mine")
    assert code == 0
    assert re.search(r"test error, %\s*│\s*1\.92\s*│\s*1\.91\s*│\s*-0\.01\s*│\s*reproduced", out)
    assert "preset paper, 1 seed, 60,000 images" in out
    assert "cited" in out


def test_models_as_json(call):
    code, out, _ = call("models", "lenet5*", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["lenet5_caffe"]["parameters"] == 431_080
    assert rows["lenet5_caffe"]["macs"] == 2_293_000
    assert rows["lenet5_caffe"]["input_shape"] == [28, 28, 1]


def test_data_list_and_check_of_the_embedded_digits(call):
    code, out, _ = call("data", "list")
    assert code == 0
    assert "4,000 train + 1,000 test" in out
    code, out, _ = call("data", "check", "mnist")
    assert code == 0
    assert "'train': '400-400 of each class'" in out


def test_doctor_finds_what_is_here(call):
    code, out, _ = call("doctor")
    assert code == 0
    assert "4 of kind cpu" in out
    assert "tensorflow" in out


def test_bench_training_writes_its_values(call, tmp_path):
    code, out, _ = call("bench", "training", "--rounds", "1", "--steps", "2", "--json", "b.json")
    assert code == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert {v["contender"] for v in content["values"]} == {"ours", "bare", "bare, grouped"}
    assert all(v["steps_per_second"] > 0 for v in content["values"])
    assert content["packages"]["jax"] in out or content["devices"]["platform"] == "cpu"


def test_bench_networks(call, tmp_path):
    code, out, _ = call("bench", "networks", "lenet_300_100", "--batch", "2", "--rounds", "2")
    assert code == 0
    assert "lenet_300_100" in out


def test_publish_takes_clean_records_only(call, tmp_path, monkeypatch):
    from experiments.commands import publish as command
    from experiments.results import publish

    monkeypatch.setattr(command, "publish", lambda record: publish(record, tmp_path / "published"))
    record = made_up(error=1.9)
    write(record, tmp_path / "runs")
    assert call("publish", "runs")[0] == 0
    target = tmp_path / "published" / "sparse_vd" / SPARSE.split(".", 1)[1] / "paper-seed0.json"
    assert json.loads(target.read_text()) == record
    record["code"]["dirty"] = True
    write(record, tmp_path / "runs")
    code, _, err = call("publish", "runs")
    assert code == 2
    assert "differed from commit" in err
    assert call("publish", "runs", "--allow-dirty")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "command 'lst' is unknown; did you mean 'list'?"),
        (["list", "sparse_dv*"], "no experiment matches 'sparse_dv*'; did you mean"),
        (["list", "a", "b"], "b"),
        (["show"], "STR"),
        (["show", "sparse_vd.table1.lenet-300-sparse"], "did you mean 'sparse_vd.table1.lenet-300"),
        (["show", SPARSE, "--preset", "fast"], "'fast'"),
        (["table", "nothing"], "no experiment matches 'nothing'"),
        (["table", "--results", "nowhere"], "--results is 'nowhere', which is no folder"),
        (["models", "resnt*"], "no model matches 'resnt*'"),
        (["models", "--jsn"], "--jsn"),
        (["data"], "expects one of list|check|import"),
        (["data", "lst"], "has no 'lst'; did you mean 'list'?"),
        (["data", "check", "mnits"], "'mnits'; did you mean 'mnist'?"),
        (["data", "import", "mnist"], "PATH"),
        (["data", "import", "mnist", "nowhere"], "nowhere does not exist"),
        (["data", "list", "--data-dir", "nowhere"], "--data-dir"),
        (["evaluate", "lenet_300_100", "--weights", "nowhere", "--data", "mnist"], "nowhere"),
        (["evaluate", "lenet_300", "--weights", "x", "--data", "mnist"], "did you mean 'lenet300'"),
        (["evaluate", "lenet_300_100", "--data", "mnist"], "--weights"),
        (["bench", "training", "--rounds", "none"], "--rounds: invalid literal for int()"),
        (["bench", "training", "--rounds", "0"], "--rounds is 0; expected a positive number"),
        (["bench", "kernels"], "no kernels of its own yet"),
        (["bench", "networks", "nothing*"], "no model matches 'nothing*'"),
        (["publish", "nowhere"], "'nowhere' has no record.json"),
    ],
)
def test_mistakes_are_one_line_and_code_2(call, arguments, message):
    code, _, err = call(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("adaptive-nets: ")
    assert message in err


def test_messages_do_not_depend_on_the_terminals_width(monkeypatch):
    from adaptive_nets.errors import UserError
    from experiments.commands.models import Models

    for width in ("20", "80", "400"):
        monkeypatch.setenv("COLUMNS", width)
        with pytest.raises(UserError) as error:
            parse(Models, ["--nonsense", "3"], program="p")
        assert "\n" not in str(error.value)
        assert "--nonsense" in str(error.value)


def test_the_module_and_a_closed_pipe(tmp_path):
    """python -m experiments is the same program, and 'head' may close its output early."""
    command = f"{sys.executable} -m experiments list; echo code $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | head -1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("id")
    assert "Traceback" not in done.stderr
