"""Notebooks: form, public imports, the runner, and (slow) each one from top to bottom."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import experiments
from adaptive_nets.runtime.errors import UserError
from experiments.notebooks.__main__ import main
from experiments.notebooks.execution import (
    CellError,
    execute,
    parameter_names,
    to_jupyter,
    write_jupyter,
)
from experiments.notebooks.percent import find_notebooks, notebook_paths, read_cells

ROOT = Path(experiments.__file__).parent.parent
NOTEBOOKS = notebook_paths()
SECONDS = 120
"""Bound of a notebook on two free cores."""
OURS = {"adaptive_nets", "kernels", "experiments"}
OTHERS = {"jax", "numpy", "matplotlib"}
HEADER = read_cells(NOTEBOOKS[0])[0].source if NOTEBOOKS else ""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_notebooks_are_numbered_without_gaps_and_listed_in_the_documentation():
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == list(range(1, 10))
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert path.name in page, f"{path.name} is missing in docs/notebooks.md"


@each_notebook
def test_begins_with_the_cell_for_colab_then_title_and_parameters(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:\n#   jupytext:")
    first, title, parameters, *_ = read_cells(path)
    assert first.source == HEADER
    assert first.is_code
    assert "google.colab" in first.source
    assert '"pip", "install"' in first.source
    assert '"adaptive-nets"' in first.source
    assert not title.is_code
    assert title.source.startswith("# ")
    assert len(title.source) > 150
    assert parameters.tags == ("parameters",)
    names = parameter_names(read_cells(path))
    assert names
    assert all(name.isupper() for name in names)


@each_notebook
def test_cells_compile_alone_and_text_stands_between_them(path):
    cells = read_cells(path)
    for cell in cells:
        assert cell.source, f"{path.name}, line {cell.line}: an empty cell"
        if cell.is_code:
            ast.parse(cell.source)
    assert sum(not cell.is_code for cell in cells) >= 4
    assert sum("plt.show()" in cell.source for cell in cells) >= 2
    # Reading the cells one by one loses nothing but the markers.
    whole = ast.dump(ast.parse(path.read_text(encoding="utf-8")))
    assert whole == ast.dump(ast.parse("\n".join(c.source for c in cells if c.is_code)))


@each_notebook
def test_imports_public_names_that_exist_and_defines_no_layers(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                check_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module is not None
            check_module(node.module)
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert not alias.name.startswith("_")
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def check_module(name: str) -> None:
    """Checks that a module may be used in a notebook."""
    root = name.split(".")[0]
    assert root in OURS | OTHERS | set(sys.stdlib_module_names), name
    assert not any(part.startswith("_") for part in name.split("."))
    if root == "experiments":
        assert name == "experiments.suite.records"


def test_first_cell_installs_in_colab_only(monkeypatch):
    called = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: called.append(command))
    exec(HEADER, {})
    assert called == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(HEADER, {})
    assert called == [[sys.executable, "-m", "pip", "install", "-q", "adaptive-nets"]]


NOTEBOOK = """\
# ---
# jupyter: {}
# ---

# %% [markdown]
# # Title
#
# Text with *emphasis*.

# %% tags=["parameters"]
STEPS = 3
NAME = "a"

# %%
import matplotlib.pyplot as plt

print("before", STEPS)
plt.plot([0, 1])
plt.show()
print("after", NAME)

# %%
plt.plot([1, 0])
STEPS * 2
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A small notebook in a folder of its own."""
    path = tmp_path / "01_small.py"
    path.write_text(NOTEBOOK)
    return path


def add_notebook(folder: Path, name: str, code: str) -> Path:
    """Writes a notebook of one cell."""
    path = folder / name
    path.write_text(f"# %%\n{textwrap.dedent(code)}")
    return path


def test_cells_have_their_kind_line_and_tags(notebook):
    text, parameters, first, second = read_cells(notebook)
    assert (text.is_code, text.source) == (False, "# Title\n\nText with *emphasis*.")
    assert (parameters.is_code, parameters.tags) == (True, ("parameters",))
    lines = NOTEBOOK.splitlines()
    for cell in (parameters, first, second):
        assert lines[cell.line - 1] == cell.source.splitlines()[0]


def test_outputs_keep_the_order_of_text_figures_and_values(notebook):
    executed = execute(notebook)
    assert executed.text == "before 3\nafter a\n"
    kinds = [[output["output_type"] for output in outputs] for outputs in executed.outputs]
    assert kinds == [[], [], ["stream", "display_data", "stream"], ["display_data"] * 2]
    assert executed.outputs[3][0]["data"] == {"text/plain": "6"}
    assert [figure[:8] for figure in executed.figures] == [b"\x89PNG\r\n\x1a\n"] * 2


def test_parameters_are_replaced_by_name(notebook):
    assert execute(notebook, {"STEPS": 5}).text == "before 5\nafter a\n"
    with pytest.raises(UserError, match=r"no parameter 'WIDTH'; expected one of STEPS, NAME"):
        execute(notebook, {"WIDTH": 5})


def test_parameters_of_a_tuple_assignment_count_too(tmp_path):
    path = tmp_path / "01_tuple.py"
    path.write_text('# %% tags=["parameters"]\nA, B = 1, 2\n\n# %%\nprint(A, B)\n')
    assert parameter_names(read_cells(path)) == ["A", "B"]
    assert execute(path, {"B": 7}).text == "1 7\n"


def test_execution_restores_the_main_module_and_closes_figures(notebook):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before, show, backend = sys.modules["__main__"], plt.show, mpl.get_backend()
    execute(notebook)
    assert sys.modules["__main__"] is before
    assert plt.show is show
    assert mpl.get_backend() == backend
    assert plt.get_fignums() == []


def test_cells_share_a_namespace_in_which_dataclasses_work(tmp_path):
    code = """
        from __future__ import annotations
        import dataclasses

        @dataclasses.dataclass
        class Point:
            x: int

        # %%
        print(Point(3), __name__)
    """
    path = add_notebook(tmp_path, "01_class.py", code)
    assert "Point(x=3)" in execute(path).text


def test_a_failing_cell_is_named_in_one_line(tmp_path):
    path = add_notebook(tmp_path, "01_bad.py", "x = 1\n\n# %%\n\nraise ValueError('a\\nb')\n")
    with pytest.raises(CellError) as caught:
        execute(path)
    assert str(caught.value) == "notebook 01_bad.py failed in the cell of line 6: ValueError: a"


def test_a_file_without_cells_or_text_is_refused(tmp_path):
    path = tmp_path / "01_empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match=r"01_empty\.py has no cells"):
        read_cells(path)
    path.write_bytes(b"\xff\xfe# %%")
    with pytest.raises(UserError, match="cannot be read"):
        read_cells(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_cells(tmp_path / "02_absent.py")


def test_notebooks_are_found_by_number_name_and_file(notebook):
    folder = notebook.parent
    for name in ("01", "01_small", "01_small.py", "some/where/01_small.py"):
        assert find_notebooks([name], folder) == [notebook]
    assert find_notebooks([], folder) == [notebook]
    with pytest.raises(UserError, match=r"notebook '02' is unknown; expected one of 01_small"):
        find_notebooks(["02"], folder)


def test_jupyter_form_has_what_format_4_requires(notebook, tmp_path):
    write_jupyter(tmp_path / "small.ipynb", to_jupyter(execute(notebook)))
    read = json.loads((tmp_path / "small.ipynb").read_text(encoding="utf-8"))
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 5)
    assert read["metadata"]["kernelspec"]["name"] == "python3"
    kinds = [cell["cell_type"] for cell in read["cells"]]
    assert kinds == ["markdown", "code", "code", "code"]
    assert len({cell["id"] for cell in read["cells"]}) == 4
    for cell in read["cells"]:
        common = {"cell_type", "id", "metadata", "source"}
        of_code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == common | of_code
    counts = [cell["execution_count"] for cell in read["cells"][1:]]
    assert counts == [1, 2, 3]
    assert read["cells"][1]["metadata"] == {"tags": ["parameters"]}


def test_a_repository_gives_a_badge_for_colab(notebook):
    first = to_jupyter(execute(notebook), repository="owner/name")["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "/github/owner/name/blob/main/notebooks/01_small.ipynb" in first["source"]


def test_command_writes_notebooks_and_prints_a_line_for_each(notebook, tmp_path, capsys):
    folder, out = notebook.parent, tmp_path / "new" / "out"
    assert main(["--out", str(out), "--set", "STEPS=4", "--set", "NAME=b c"], folder=folder) == 0
    name, seconds, figures, path = capsys.readouterr().out.strip().split("\t")
    assert (name, figures, path) == ("01_small", "2 figures", str(out / "01_small.ipynb"))
    assert seconds.endswith(" s")
    assert "before 4\\nafter" not in (text := (out / "01_small.ipynb").read_text())
    assert "after b c" in text


def test_command_goes_on_after_a_failure_and_returns_1(notebook, tmp_path, capsys):
    folder = notebook.parent
    add_notebook(folder, "00_bad.py", "1 / 0\n")
    assert main(["--out", str(tmp_path / "out")], folder=folder) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "notebooks: notebook 00_bad.py failed in the cell of line 2: "
        "ZeroDivisionError: division by zero\n"
    )
    assert captured.out.startswith("01_small\t")
    assert not (tmp_path / "out" / "00_bad.ipynb").exists()


def test_a_signal_stops_the_command_with_one_line(notebook, tmp_path, capsys):
    folder = notebook.parent
    add_notebook(folder, "02_stopped.py", "raise KeyboardInterrupt\n")
    add_notebook(folder, "03_later.py", "print(1)\n")
    assert main(["02", "03", "--out", str(tmp_path)], folder=folder) == 130
    captured = capsys.readouterr()
    assert captured.err == "notebooks: stopped in 02_stopped.py; earlier ones are written\n"
    assert captured.out == ""
    code = """
        import signal
        from adaptive_nets.runtime.interrupt import Interrupted
        raise Interrupted(signal.SIGTERM, 7)
    """
    add_notebook(folder, "02_stopped.py", code)
    assert main(["02", "--out", str(tmp_path)], folder=folder) == 143


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["77"], "notebook '77' is unknown; expected one of 01_small"),
        (["--set", "STEPS"], "argument --set: 'STEPS'; expected NAME=VALUE"),
        (["--set", "WIDTH=1"], "notebook 01_small has no parameter 'WIDTH'"),
        (["--repository", "name"], "argument --repository: 'name'; expected OWNER/NAME"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--out", "01_small.py/x"], "--out is '01_small.py/x', no usable folder"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(notebook, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(notebook.parent)
    assert main(arguments, folder=notebook.parent) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("notebooks: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def run_command(*arguments: str, out: Path, data: str | None = None) -> str:
    """Runs the command in a process with JAX as users have it; returns its standard output."""
    settings = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    if data is not None:
        environment["ADAPTIVE_NETS_DATA"] = data
    done = subprocess.run(
        [sys.executable, "-m", "experiments.notebooks", *arguments, "--text", "--out", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@each_notebook
def test_runs_within_two_minutes_on_free_cores(path, tmp_path):
    line = run_command(path.stem, out=tmp_path).splitlines()[-1]
    name, seconds, figures, _ = line.split("\t")
    assert name == path.stem
    assert int(figures.split()[0]) >= 2
    print(line)
    if os.getloadavg()[0] < 0.75 * (os.cpu_count() or 1):
        assert float(seconds.removesuffix(" s")) < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "settings", "expected"),
    [
        ("03", ("STEPS=20", "TEST_IMAGES=32", "SIDE=64"), "data: mnist"),
        ("05", ("STEPS=40", "IMAGES=200", "VIEWS=4", "POOL=6"), "lenet5_caffe"),
        ("07", ("STEPS=20", "TEST_IMAGES=100"), "data: mnist"),
    ],
)
def test_runs_without_a_data_root_and_says_so(number, settings, expected, tmp_path):
    empty = tmp_path / "data"
    empty.mkdir()
    options = [word for setting in settings for word in ("--set", setting)]
    assert expected in run_command(number, *options, out=tmp_path, data=str(empty))
