"""Papers of other distributions: found by every command, and named in one line when broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_papers import PRUNED, TRAINED, installed, write_distribution

import experiments
from adaptive_nets.runtime.errors import UserError
from experiments.__main__ import main
from experiments.suite import registry

REPOSITORY = Path(experiments.__file__).parent.parent

# Runs the commands of its arguments, a JSON list of lists, and prints what each one did.
SCRIPT = """
import contextlib, io, json, sys
from experiments.__main__ import main
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def run_commands(path: Path, folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Runs commands in a new interpreter that finds the distributions of `path`."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(path))),
            "COLUMNS": "200",
        },
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_every_command_knows_a_paper_that_was_installed_beside_us(tmp_path):
    root, folder = tmp_path / "site", tmp_path / "work"
    folder.mkdir()
    readme = write_distribution(root) / "README.md"
    listed, shown, ran, table, report, docs = run_commands(
        root, folder,
        ["list", "toy"],
        ["show", PRUNED],
        ["run", PRUNED, "--preset", "smoke"],
        ["table", "toy", "--results", "runs"],
        ["report", "toy", "--results", "runs", "--out", "page.html"],
        ["docs", "--check"],
    )  # fmt: skip
    assert [listed[0], shown[0], ran[0], table[0], report[0]] == [0] * 5, (ran[2], report[2])
    assert PRUNED in listed[1]
    assert TRAINED in listed[1]
    assert "config.pruning.keep\t0.25" in shown[1]
    assert re.search(r"\tcompression\tx\tsmoke\t1\t68\.0\t4\.0\t.*\t-64\.0\treduced\t", table[1])
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "Toys with Few Weights" in page
    assert "<strong>Kept weights</strong>" in page
    assert docs[0] == 2
    assert str(readme) in docs[2]
    assert "stale; run adaptive-nets docs" in docs[2]


def test_documents_of_an_installed_paper_are_rendered(toy_paper, tmp_path):
    from experiments.commands import docs
    from experiments.suite.documents import paper_parts, update

    assert toy_paper / "toy_paper" / "README.md" in docs.document_paths()
    readme = tmp_path / "README.md"
    readme.write_text((toy_paper / "toy_paper" / "README.md").read_text())
    assert update(readme, [], parts=paper_parts())
    text = readme.read_text()
    assert "not rendered yet" not in text
    assert "| experiment | seed |" in text
    assert "| Small, Pruned | test error, % | 1.92 | – |  | not run |" in text
    assert not update(readme, [], parts=paper_parts())


def replaced(file: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")

    return change


def without(file: str):
    return lambda folder: (folder / file).unlink()


BROKEN = {
    "no configs": (without("configs.py"), "configs.py is missing in"),
    "no values": (without("paper_values.toml"), "paper_values.toml is missing in"),
    "syntax": (
        replaced("configs.py", "EXPERIMENTS = (", "EXPERIMENTS = )"),
        r"configs cannot be imported: SyntaxError: .*\(configs\.py, line \d+\)",
    ),
    "import": (
        replaced("configs.py", "import dataclasses", "import dataclasses, nothing_such"),
        "configs cannot be imported: ModuleNotFoundError: No module named 'nothing_such'",
    ),
    "package": (
        replaced("__init__.py", '"""A', '1 / 0\n"""A'),
        "cannot be imported: ZeroDivisionError",
    ),
    "no experiments": (
        replaced("configs.py", "EXPERIMENTS = (", "OTHERS = ("),
        "configs has no EXPERIMENTS; expected a tuple of Experiment",
    ),
    "other things": (
        lambda folder: (folder / "configs.py").write_text("EXPERIMENTS = ('a', 'b')\n"),
        "configs has no EXPERIMENTS; expected a tuple of Experiment",
    ),
    "toml": (
        replaced("paper_values.toml", "[measures.error]", "[measures.error"),
        r"paper_values\.toml cannot be read: .*line 5",
    ),
    "no title": (
        replaced("paper_values.toml", 'title = "Toys', 'titel = "Toys'),
        "title is None; expected a str",
    ),
    "side": (
        replaced("paper_values.toml", 'better = "higher"', 'better = "more"'),
        r"paper_values\.toml: Invalid enum value 'more'",
    ),
    "measure": (
        replaced("paper_values.toml", "error = 1.64", "mistakes = 1.64"),
        "row 'table1.small-trained' has values without a measure: mistakes",
    ),
    "row": (
        replaced("paper_values.toml", 'id = "table1.small-pruned"', 'id = "table1.other"'),
        r"paper_values\.toml has no row 'table1.small-pruned', which \S+ names",
    ),
    "prefix": (
        replaced("configs.py", 'id="broken.table1.small-pruned"', 'id="others.small-pruned"'),
        "experiment id 'others.small-pruned' does not begin with 'broken.'",
    ),
}


def test_a_folder_may_declare_the_prefix_of_its_ids(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = write_distribution(tmp_path / "site", name="more", package="more_paper")
    text = (folder / "configs.py").read_text().replace('id="more.', 'id="toy.further.')
    text = text.replace("EXPERIMENTS = (", 'IDS = "toy.further"\nEXPERIMENTS = (')
    (folder / "configs.py").write_text(text)
    write_distribution(tmp_path / "site")
    with installed(tmp_path / "site"):
        assert registry.problems() == []
        further = registry.find_experiment("toy.further.table1.small-pruned")
        assert further.paper == "more"
        assert {e.id for e in registry.select("more")} == {
            "toy.further.table1.small-pruned",
            "toy.further.table1.small-trained",
        }
        assert registry.find_experiment(PRUNED).paper == "toy"
        assert main(["table", "more"]) == 0
        assert "toy.further.table1.small-pruned\tmore: Table 1\t" in capsys.readouterr().out
    replaced("configs.py", '"toy.further"', '"toy.other"')(folder)
    with installed(tmp_path / "site"):
        (line,) = registry.problems()
        assert "does not begin with 'toy.other.'" in line


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_paper_is_named_and_the_others_still_work(tmp_path, monkeypatch, capsys, case):
    change, message = BROKEN[case]
    monkeypatch.chdir(tmp_path)
    write_distribution(tmp_path / "site")
    change(write_distribution(tmp_path / "site", name="broken", package="broken_paper"))
    with installed(tmp_path / "site"):
        (line,) = registry.problems()
        assert re.match(rf"paper 'broken' \(broken_paper\) is skipped: .*{message}", line), line
        assert "toy" in registry.papers()
        assert main(["list", "toy"]) == 0
        out, err = capsys.readouterr()
        assert PRUNED in out
        assert err == f"adaptive-nets: {line}\n"
        with pytest.raises(UserError, match=re.escape(line)):
            registry.find_experiment("broken.table1.small-pruned")
        with pytest.raises(UserError, match=re.escape(line)):
            registry.select("broken.table1")
        with pytest.raises(UserError, match=re.escape(line)):
            registry.load_paper("broken")


@pytest.mark.parametrize("file", ["figures.py", "tables.py", "measures.py", "README.md"])
def test_a_file_that_a_paper_lacks_is_named_and_the_paper_still_works(tmp_path, file):
    (write_distribution(tmp_path) / file).unlink()
    with installed(tmp_path):
        assert registry.problems() == [f"paper 'toy' lacks {file} in {tmp_path / 'toy_paper'}"]
        assert registry.select("toy")


def test_an_experiments_id_belongs_to_one_paper(tmp_path):
    write_distribution(tmp_path)
    folder = write_distribution(tmp_path, name="other", package="other_paper")
    replaced("configs.py", '"other.table1.tiny-pruned"', '"toy.table1.small-pruned"')(folder)
    with installed(tmp_path):
        (line,) = registry.problems()
        assert line == (
            "paper 'toy' (toy_paper) is skipped: experiment id 'toy.table1.small-pruned' is taken "
            "by other_paper"
        )
        assert "other" in registry.papers()


def test_a_name_belongs_to_one_paper(tmp_path):
    write_distribution(tmp_path)
    write_distribution(tmp_path, name="toy", package="yet_another")
    with installed(tmp_path):
        (line,) = registry.problems()
        assert line.startswith("paper 'toy' (yet_another) is skipped: the name is taken by ")
        assert registry.papers()["toy"].package == "toy_paper"


def test_an_entry_point_that_names_nothing(tmp_path):
    write_distribution(tmp_path)
    points = tmp_path / "toy_paper-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{registry.GROUP}]\ntoy = nothing_such\nfile = csv\n")
    with installed(tmp_path):
        assert registry.problems() == [
            "paper 'file' (csv) is skipped: csv is not a package",
            "paper 'toy' (nothing_such) is skipped: nothing_such is not a package",
        ]


@pytest.mark.parametrize("failure", ["import nothing_such", "def figures(records): 1 / 0"])
def test_figures_that_fail_are_named_on_the_page_and_the_rest_is_there(
    tmp_path, monkeypatch, capsys, failure
):
    monkeypatch.chdir(tmp_path)
    write_distribution(tmp_path / "site")
    folder = write_distribution(tmp_path / "site", name="broken", package="broken_paper")
    (folder / "figures.py").write_text(f"{failure}\n")
    with installed(tmp_path / "site"):
        assert registry.problems() == []
        assert main(["report", "*.table1.small*", "--results", ".", "--out", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    error = "ModuleNotFoundError" if "import" in failure else "ZeroDivisionError"
    assert re.search(rf"The figures are left out: [^<]*{error}", page)
    assert page.count("Kept weights are not drawn: no record") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("adaptive-nets: figures of paper 'broken' are left out: ")
    assert error in line


def test_tables_that_fail_are_named(tmp_path):
    from experiments.suite.documents import paper_parts

    (write_distribution(tmp_path) / "tables.py").write_text("PARTS = nothing\n")
    with (
        installed(tmp_path),
        pytest.raises(UserError, match="paper 'toy': tables cannot be imported: NameError"),
    ):
        paper_parts()


def test_a_runner_that_fails_to_import_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (write_distribution(tmp_path / "site") / "experiment.py").write_text("1 / 0\n")
    with installed(tmp_path / "site"):
        assert main(["run", PRUNED, "--preset", "smoke", "--out", "run"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"experiment '{PRUNED}': its runner 'toy_paper.experiment:prune' cannot be" in err
    assert "ZeroDivisionError" in err


def test_what_is_common_names_no_paper():
    """Neither the rooms that all papers share nor their tests mention one of ours."""
    names = "|".join(
        name
        for name, entry in registry.papers().items()
        if entry.package.startswith("experiments.papers.")
    )
    # "the zoo" is that of the models.
    mention = re.compile(rf"(?<![\w-])(?<!\bthe )(?:{names})(?![\w-])")
    rooms = [REPOSITORY / "experiments" / r for r in ("suite", "shared", "commands", "report")]
    files = [path for room in rooms for path in room.rglob("*.py")]
    tests = Path(__file__).parent
    files += [
        *tests.glob("*.py"),
        *tests.parent.glob("*.py"),
        *(tests.parent / "toy_paper").rglob("*.py"),
    ]
    assert len(files) > 60
    found = {
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if mention.search(line)
    }
    assert found == set()
