"""Commands and code in the documents work as they stand."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import shutil
from pathlib import Path

import pytest

import experiments.commands
from experiments.__main__ import COMMANDS, dispatch, main
from experiments.commands import docs
from experiments.commands.parsing import parse
from experiments.suite.registry import papers

README = docs.ROOT / "README.md"
ROW = "sparse_vd.table1.lenet-300-100"
DOCUMENTS = [*docs.document_paths(), docs.ROOT / "experiments" / "papers" / "README.md"]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
_PROGRAM = re.compile(r"^(\.venv/bin/)?adaptive-nets ")


def blocks(text, language):
    return [body for name, body in _BLOCK.findall(text) if name == language]


def makefile_commands():
    """Returns the lines of the target 'reproduce' that call the program."""
    lines = (docs.ROOT / "Makefile").read_text().split("\nreproduce: setup\n")[1].split("\n\n")[0]
    lines = lines.replace("$(BIN)", ".venv/bin").replace("$(ROW)", ROW)
    found = [re.search(r"\.venv/bin/adaptive-nets [^\"\n]*", line) for line in lines.splitlines()]
    return [match[0] for match in found if match]


def shell_lines(path):
    """Returns the command lines of a document's sh blocks, continued lines joined."""
    text = "\n".join(blocks(path.read_text(), "sh")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def commands():
    for path in DOCUMENTS:
        name = path.relative_to(docs.ROOT)
        for line in shell_lines(path):
            if _PROGRAM.match(line):
                yield pytest.param(line, id=f"{name}: {line[:70]}")
    for line in makefile_commands():
        yield pytest.param(line, id=f"Makefile: {line[:70]}")


class Parsed(Exception):
    """The flags of a command were understood; it goes no further."""


@pytest.fixture
def parse_only(monkeypatch):
    def parse_and_stop(form, arguments, **options):
        parse(form, arguments, **options)
        raise Parsed

    for module in pkgutil.iter_modules(experiments.commands.__path__):
        loaded = importlib.import_module(f"experiments.commands.{module.name}")
        if module.name != "parsing" and hasattr(loaded, "parse"):
            monkeypatch.setattr(loaded, "parse", parse_and_stop)


@pytest.mark.parametrize("line", list(commands()))
def test_commands_of_documents_are_understood(parse_only, line):
    words = shlex.split(_PROGRAM.sub("", line), comments=True)
    with pytest.raises(Parsed):
        dispatch(words)


def dry_commands():
    """Yields the commands that only print, and every run as a script that would start it."""
    for command in commands():
        words = shlex.split(_PROGRAM.sub("", str(command.values[0])), comments=True)
        if words[0] in ("launch", "list", "show"):
            yield pytest.param(words, id=command.id)
        elif words[0] == "run":
            job = ("--job.gpus-per-node", "0")
            yield pytest.param(["launch", "slurm", *words[1:], *job], id=command.id)


@pytest.mark.parametrize("words", list(dry_commands()))
def test_commands_that_print_run_as_they_stand(words, capsys):
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out
    assert err == ""
    if words[0] == "launch":
        # The script repeats the arguments of the run.
        assert words[2] in out


def test_the_documents_show_every_kind_of_launch():
    shown = {
        line.split()[2] for path in DOCUMENTS for line in shell_lines(path) if "launch" in line
    }
    assert shown == {"slurm", "k8s", "ssh"}


def test_the_other_commands_of_the_readme_are_of_make_and_pip():
    targets = re.findall(r"^([\w-]+):", (docs.ROOT / "Makefile").read_text(), re.M)
    others = [line for line in shell_lines(README) if not _PROGRAM.match(line)]
    assert [line.split()[:2] for line in others] == [
        ["pip", "install"], ["make", "reproduce"], ["make", "test"],
    ]  # fmt: skip
    assert {"reproduce", "test"} <= set(targets)


def test_every_command_is_in_the_documents():
    text = (docs.ROOT / "docs" / "commands.md").read_text()
    assert all(re.search(rf"`{name}\b", text) for name in COMMANDS)


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(docs.ROOT / "docs", tmp_path / "docs")
    flags = ("--preset", "smoke", "--out", f"runs/{ROW}-sparse/quick", "--data.source", "embedded")
    flags += ("--schedule.length", "400 steps", "--data.train-limit", "8000")
    assert main(["run", f"{ROW}-sparse", *flags, "--data.test-limit", "1000"]) == 0
    found = blocks(README.read_text(), "python")
    assert len(found) == 3
    capsys.readouterr()
    exec(compile(found[0], str(README), "exec"), {})
    assert capsys.readouterr().out == "7\n"
    exec(compile(found[1], str(README), "exec"), {})
    assert len(capsys.readouterr().out.split()) == 2
    exec(compile(found[2], str(README), "exec"), {})
    # Ten classes, untrained.
    assert -20 < float(capsys.readouterr().out) < 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(docs.ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("name", papers())
def test_the_table_of_files_of_a_paper_is_that_of_its_folder(name):
    folder: Path = papers()[name].folder
    if not folder.is_relative_to(docs.ROOT):
        pytest.skip("a paper of another distribution")
    text = (folder / "README.md").read_text().split("\n| --- | --- |\n")[1].split("\n\n")[0]
    named = {
        file for row in text.splitlines() for file in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    there = {f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir()}
    there -= {"README.md", "__init__.py", "__pycache__/"}
    assert named == there
