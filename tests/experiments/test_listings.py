"""Listings for people and for pipes: whole names, plain lines, JSON, no colours where unwanted."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.fixations import FIXATION_SETS
from adaptive_nets.models import list_models
from experiments.__main__ import EXAMPLES, main
from experiments.commands import encoding, models, output, table
from experiments.commands import list as listing
from experiments.commands.catalogue import COMMANDS
from experiments.commands.layout import Column, fit_columns, table_lines
from experiments.suite import registry
from experiments.suite.experiment import Preset

ROOT = Path(experiments.__file__).parents[1]
IDS = list(registry.experiments())
FIRST = registry.experiments()[IDS[0]]
# One experiment of each paper, that with the longest id; with all of them it is a minute.
LONGEST = {max((e.id for e in paper.experiments), key=len) for paper in registry.papers().values()}
each_experiment = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in LONGEST else pytest.mark.slow) for n in IDS]
)
ESCAPE = "\x1b"

# Command -> keys that every object of its JSON has, or an object where there is only one.
LISTINGS = {
    ("list",): {"id", "paper", "title", "cell", "data", "presets", "cost", "state"},
    ("table", FIRST.paper): {
        "id", "table", "row", "measure", "unit", "preset", "seeds", "records", "paper_value",
        "ours", "deviation", "difference", "status", "reason",
    },
    ("models", "lenet"): {
        "name", "parameters", "macs", "input_shape", "num_classes", "source", "description",
    },
    ("models", "lenet5", "--reference"): {
        "reference", "model", "overrides", "counted", "without", "ours", "stated", "equal",
        "source",
    },
    ("data", "list"): {
        "name", "title", "state", "message", "source", "form", "location", "counts", "complete",
    },
    ("data", "check", "mnist"): {
        "name", "state", "message", "source", "location", "class_counts", "fingerprint",
    },
    ("doctor",): {"check", "state", "process", "finding"},
}  # fmt: skip


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; returns (code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)

    def run(*arguments):
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def terminal(call, monkeypatch):
    """The same, as on a terminal of 80 columns."""
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    for module in (listing, table):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    return call


def program(*arguments, **environment):
    """Runs the program as a process of its own, writing to a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


def on_a_pty(command, **environment):
    """Runs a command line on a pseudo-terminal and returns what it showed."""
    script = shutil.which("script")
    if script is None:
        pytest.skip("needs script(1) for a pseudo-terminal")
    done = subprocess.run(
        [script, "-qec", f"{sys.executable} -m experiments {command}", os.devnull],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("list",), IDS),
        (("models",), list_models()),
        (("data", "list"), [*CATALOGUE, *FIXATION_SETS]),
    ],
)
def test_no_name_is_broken_at_80_columns(terminal, arguments, names):
    code, out, _ = terminal(*arguments)
    header, *lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == names
    assert header.split()[0] in ("id", "name")
    assert max(map(len, lines)) <= 80


@each_experiment
def test_tables_and_experiments_are_shown_by_their_whole_id(terminal, name):
    code, out, err = terminal("table", name)
    assert code == 0
    # A row without a number in the paper has a remark instead.
    assert name in [line.strip() for line in out.splitlines()] or f"{name}: the paper" in err


def test_a_pty_gets_a_table_and_the_next_command():
    shown = on_a_pty(f"list {FIRST.id}", NO_COLOR="")
    assert ESCAPE in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "")
    assert re.search(rf"^{re.escape(FIRST.id)}  ", plain, re.MULTILINE)
    assert f"next: adaptive-nets show {FIRST.id}" in plain


@pytest.mark.parametrize(
    "command",
    [pytest.param("list", marks=pytest.mark.slow), "models --help", "table", "models lenet"],
)
def test_no_color_leaves_no_escape_code(command):
    shown = on_a_pty(command, NO_COLOR="1")
    assert len(shown) > 100
    assert ESCAPE not in shown


@pytest.mark.parametrize("arguments", LISTINGS)
def test_a_pipe_gets_tab_separated_lines(call, arguments):
    code, out, _ = call(*arguments)
    header, *lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert lines
    assert set(header) <= LISTINGS[arguments]
    assert {len(line) for line in lines} == {len(header)}
    assert not set("│─╭") & set(out)
    assert ESCAPE not in out


def test_a_pipe_has_every_id_once(call):
    out = call("list")[1]
    assert [line.split("\t")[0] for line in out.splitlines()[1:]] == IDS


def test_numbers_in_a_pipe_are_digits(call):
    out = call("models", "lenet5_caff?")[1]
    header, line = [line.split("\t") for line in out.splitlines()]
    row = dict(zip(header, line, strict=True))
    assert row["parameters"] == "431080"
    assert row["macs"] == "2293000"
    assert row["input_shape"] == "28x28x1"


@pytest.mark.parametrize("arguments", LISTINGS)
def test_every_listing_is_json(call, arguments):
    code, out, _ = call(*arguments, "--json")
    rows = json.loads(out)
    assert code == 0
    assert rows
    for row in rows:
        assert LISTINGS[arguments] <= set(row)


@each_experiment
def test_show_is_json_for_every_experiment(call, name, monkeypatch):
    from experiments.commands import show

    # The shapes of networks are the tests' of the zoo.
    monkeypatch.setattr(show, "described_network", lambda name, options: {"name": name})
    code, out, _ = call("show", name, "--json")
    content = json.loads(out)
    assert code == 0
    assert content["id"] == name
    assert {
        "title", "preset", "command", "data", "state", "paper", "cost", "expected", "config",
        "config_hash", "network", "deviations",
    } <= set(content)  # fmt: skip


def test_show_in_a_pipe_and_on_a_terminal(call, monkeypatch):
    from experiments.commands import show

    out = call("show", FIRST.id)[1]
    assert out.startswith("field\tvalue\n")
    assert f"\nid\t{FIRST.id}\n" in f"\n{out}"
    monkeypatch.setattr(show, "is_terminal", lambda: True)
    lines = call("show", FIRST.id)[1].splitlines()
    assert lines[0] == FIRST.id
    assert f"  adaptive-nets run {FIRST.id} --preset paper" in lines


def test_show_of_an_experiment_without_model_or_training(call, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Rule:
        length: int = 3

    bare = dataclasses.replace(FIRST, presets={"paper": Preset(config=Rule())})  # pyright: ignore
    for module in ("experiments.commands.show", "experiments.suite.registry"):
        monkeypatch.setattr(f"{module}.find_experiment", lambda name: bare)
    code, out, _ = call("show", FIRST.id, "--json")
    content = json.loads(out)
    assert code == 0
    assert content["network"] is None
    assert content["config"] == {"length": 3}


def test_bench_prints_json_for_a_dash_or_nothing(call, tmp_path):
    command = ("bench", "networks", "lenet_300_100", "--batch", "2", "--rounds", "0", "--json")
    for arguments in (command, (*command, "-")):
        code, out, _ = call(*arguments)
        assert code == 0
        assert json.loads(out)["benchmark"] == "networks"
    code, out, err = call(*command, "b.json")
    assert code == 0
    assert out.startswith("name\tbatch\t")
    assert "written to b.json" in err
    assert json.loads((tmp_path / "b.json").read_text())["benchmark"] == "networks"


@pytest.mark.parametrize(
    "arguments",
    [("list", "--json", "yes"), ("doctor", "--json=3"), ("models", "--json", "--refrence")],
)
def test_wrong_use_of_json_is_one_line(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2
    # A paper that lacks a file has a line of its own.
    assert sum(" lacks " not in line for line in err.splitlines()) == 1
    assert not out


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("ascii", ("table",)),
        ("ascii", ("models", "--help")),
        ("latin-1", ("models", "--help")),
        pytest.param("latin-1", ("table",), marks=pytest.mark.slow),
        pytest.param("ascii", ("list",), marks=pytest.mark.slow),
        pytest.param("latin-1", ("list",), marks=pytest.mark.slow),
    ],
)
def test_a_stream_without_our_characters_gets_others(encoding, arguments):
    done = program(*arguments, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert len(done.stdout) > 100


def test_the_c_locale_and_letters_without_a_plain_form():
    values = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = program("run", FIRST.id, "--help", **values)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert len(done.stdout) > 1000


@pytest.mark.parametrize(
    ("character", "plain"), [("α", "alpha"), ("Σ", "sigma"), ("é", "e"), ("–", "-"), ("猫", "?")]
)
def test_characters_that_cannot_be_encoded_are_replaced(character, plain):
    encoding.replace_unknown_characters()
    assert character.encode("ascii", errors="adaptive_nets.plain") == plain.encode()


@pytest.mark.parametrize(("arguments", "unbuffered"), [(("--help",), ""), (("list",), "1")])
def test_output_that_cannot_be_written_is_one_line(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "experiments", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if " lacks " not in line]
    assert len(lines) == 1
    assert lines[0].startswith(
        "adaptive-nets: standard output cannot be written: no space left on the disk"
    )


def test_listings_import_no_network():
    script = (
        "import sys; from experiments.__main__ import main; main(['models']); main(['list']); "
        "main(['models', '--reference']); main(['complete', 'models', 'le']); "
        "assert not {'jax', 'flax'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True)
    assert set(list_models()) <= {line.split("\t")[0] for line in done.stdout.decode().split("\n")}


def test_models_take_the_beginning_of_a_name_or_a_pattern(call):
    for pattern in ("lenet5", "lenet5*", "*net5_ca*"):
        assert "\nlenet5_caffe\t" in call("models", pattern)[1]
    code, _, err = call("models", "net5_caffe")
    assert code == 2
    assert "no model matches 'net5_caffe'" in err


def test_a_model_that_does_not_ship_is_counted(call, monkeypatch):
    shipped = {name: row for name, row in models.shipped_models().items() if "lenet5" in name}
    ours = shipped.pop("lenet5_caffe")
    monkeypatch.setattr(models, "shipped_models", lambda: shipped)
    monkeypatch.setattr(models, "is_current", lambda: False)
    (row,) = json.loads(call("models", "lenet5_caffe", "--json")[1])[:1]
    assert row == {"name": "lenet5_caffe", **ours}


def test_columns_are_taken_by_rank():
    columns = [
        (Column("id"), 20),
        (Column("cell", rank=3, least=8), 30),
        (Column("cost", rank=2), 12),
        (Column("state", rank=1), 10),
    ]
    assert fit_columns(columns, 100) == {"id": 20, "cell": 30, "cost": 12, "state": 10}
    assert fit_columns(columns, 70) == {"id": 20, "cell": 22, "cost": 12, "state": 10}
    assert fit_columns(columns, 50) == {"id": 20, "cost": 12, "state": 10}
    # One that does not fit leaves its place to the next.
    assert fit_columns(columns, 42) == {"id": 20, "cell": 8, "state": 10}
    assert fit_columns(columns, 10) == {"id": 20}


def test_long_text_ends_in_an_ellipsis_and_ids_do_not():
    columns = (Column("id"), Column("text", rank=1, least=6))
    rows = [{"id": "an.id.of.some.length", "text": "words that go on"}]
    lines = [line.plain for line in table_lines(columns, rows, width=30)]
    assert lines == ["id                    text", "an.id.of.some.length  words t…"]
    assert [line.plain for line in table_lines(columns, rows, width=10)][1] == rows[0]["id"]


def test_version(call):
    code, out, _ = call("--version")
    assert code == 0
    assert re.fullmatch(r"adaptive-nets \d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_an_example(call, capsys, name):
    try:
        out = call(name, "--help")[1]
    except SystemExit:
        out = capsys.readouterr().out
    examples = re.split(r"^examples?:$", out, flags=re.MULTILINE)[1].splitlines()[1:]
    assert examples
    assert all(f"adaptive-nets {name}" in line for line in examples)
    assert "{" not in "".join(examples)


def test_examples_of_the_program_end_with_using_a_network():
    assert [example.split()[1] for example in EXAMPLES] == ["run", "table", "predict"]


def test_the_keys_are_documented():
    text = Path(output.__file__).with_name("README.md").read_text(encoding="utf-8")
    for arguments, keys in LISTINGS.items():
        for key in keys:
            assert f"`{key}`" in text, (arguments, key)
