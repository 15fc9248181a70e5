"""Execution of notebooks as plain Python, and Jupyter notebooks with the outputs.

Cells run in one namespace, figures are drawn without a display, and the result is written in
Jupyter's format. No Jupyter package is needed.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import dataclasses
import io
import json
import linecache
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.interrupt import Interrupted
from experiments.notebooks.percent import PARAMETERS, Cell, read_cells

# Jupyter's own figures have 72 dots per inch; more is sharper and still small.
_DOTS_PER_INCH = 90


class CellError(Exception):
    """Failure of a cell; the message is one line with the notebook, the line and the error."""


@dataclasses.dataclass(frozen=True)
class Executed:
    """Cells of a notebook with their outputs.

    Attributes:
        name: name of the notebook, its file name without suffix.
        cells: cells in order.
        outputs: outputs of each cell, in the form of Jupyter's format 4.
    """

    name: str
    cells: tuple[Cell, ...]
    outputs: tuple[list[dict[str, Any]], ...]

    @property
    def text(self) -> str:
        """Text that the cells printed."""
        return "".join(
            output["text"]
            for outputs in self.outputs
            for output in outputs
            if output["output_type"] == "stream"
        )

    @property
    def figures(self) -> list[bytes]:
        """Figures as PNG files."""
        return [
            base64.b64decode(output["data"]["image/png"])
            for outputs in self.outputs
            for output in outputs
            if "image/png" in output.get("data", {})
        ]


def execute(path: Path, parameters: Mapping[str, Any] | None = None) -> Executed:
    """Executes the cells of a notebook in one namespace.

    Args:
        path: percent-format file.
        parameters: values that replace those of the cell tagged ``parameters``.

    Raises:
        CellError: a cell raised an exception.
        Interrupted: a signal stopped a training.
        UserError: the notebook cannot be read, or has no parameter of a given name.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    cells = read_cells(path)
    parameters = dict(parameters or {})
    _check_parameters(path, cells, parameters)
    module = types.ModuleType("__main__")
    namespace = vars(module)
    outputs: list[list[dict[str, Any]]] = []
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    before = sys.modules["__main__"]
    # Dataclasses and pickles of a notebook look up their module.
    sys.modules["__main__"] = module
    try:
        with matplotlib.rc_context():
            for number, cell in enumerate(cells):
                outputs.append(_run(path, number, cell, namespace) if cell.is_code else [])
                if PARAMETERS in cell.tags:
                    namespace.update(parameters)
    finally:
        sys.modules["__main__"] = before
        plt.close("all")
        matplotlib.use(backend)
    return Executed(path.stem, tuple(cells), tuple(outputs))


def parameter_names(cells: list[Cell]) -> list[str]:
    """Returns the names that the cell tagged ``parameters`` assigns."""
    return [
        name.id
        for cell in cells
        if PARAMETERS in cell.tags
        for statement in ast.parse(cell.source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    ]


def _check_parameters(path: Path, cells: list[Cell], parameters: Mapping[str, Any]) -> None:
    known = parameter_names(cells)
    for name in parameters:
        if name not in known:
            raise UserError(
                f"notebook {path.stem} has no parameter {name!r}; expected one of "
                f"{', '.join(known) or 'none'}"
            )


def _run(path: Path, number: int, cell: Cell, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs one cell of code; returns its outputs."""
    collected = _Outputs()
    # Tracebacks and `inspect` read the source of a cell from here.
    name = f"<{path.stem}, cell {number + 1}>"
    linecache.cache[name] = (len(cell.source), None, cell.source.splitlines(True), name)
    try:
        tree = ast.parse(cell.source, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body[-1].value)
            del tree.body[-1]
        with collected:
            exec(compile(tree, name, "exec"), namespace)
            if last is not None:
                collected.show(eval(compile(last, name, "eval"), namespace))
    except Interrupted:
        raise
    except Exception as error:
        raise CellError(
            f"notebook {path.name} failed in the cell of line {cell.line}: "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        ) from error
    return collected.outputs


class _Outputs:
    """Context that collects printed text and figures in their order."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._printed = io.StringIO()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> _Outputs:
        self._cleanup.enter_context(contextlib.redirect_stdout(self._printed))
        self._cleanup.enter_context(_showing(self._take_figures))
        return self

    def __exit__(self, kind: Any, *rest: object) -> None:
        self._cleanup.close()
        if kind is None:
            self._take_figures()
            self._take_text()

    def show(self, value: Any) -> None:
        """Adds the value of a cell's last expression, as Jupyter does."""
        if value is None:
            return
        self._take_text()
        data = {"text/plain": repr(value)}
        self.outputs.append({"output_type": "display_data", "metadata": {}, "data": data})

    def _take_text(self) -> None:
        text = self._printed.getvalue()
        if text:
            self.outputs.append({"output_type": "stream", "name": "stdout", "text": text})
        self._printed.seek(0)
        self._printed.truncate()

    def _take_figures(self) -> None:
        import matplotlib.pyplot as plt

        self._take_text()
        for number in plt.get_fignums():
            content = io.BytesIO()
            plt.figure(number).savefig(
                content, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata={}
            )
            data = {"image/png": base64.b64encode(content.getvalue()).decode()}
            self.outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
        plt.close("all")


@contextlib.contextmanager
def _showing(take: Any) -> Iterator[None]:
    """Replaces `matplotlib.pyplot.show`, which would want a display."""
    import matplotlib.pyplot as plt

    original = plt.show
    plt.show = lambda *arguments, **options: take()
    try:
        yield
    finally:
        plt.show = original


def to_jupyter(executed: Executed, *, repository: str | None = None) -> dict[str, Any]:
    """Returns a notebook in Jupyter's format 4.5, with outputs.

    Args:
        executed: executed notebook.
        repository: OWNER/NAME on GitHub; if given, the notebook begins with a badge that opens it
            in Colab from the folder ``notebooks`` of the branch main.
    """
    cells = []
    if repository is not None:
        cells.append(_text_cell("colab", colab_badge(executed.name, repository)))
    count = 0
    for number, (cell, outputs) in enumerate(zip(executed.cells, executed.outputs, strict=True)):
        identity = f"cell-{number + 1}"
        if not cell.is_code:
            cells.append(_text_cell(identity, cell.source))
            continue
        count += 1
        cells.append(
            {
                "cell_type": "code",
                "id": identity,
                "metadata": {"tags": list(cell.tags)} if cell.tags else {},
                "execution_count": count,
                "source": cell.source,
                "outputs": outputs,
            }
        )
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": cells,
    }


def colab_badge(name: str, repository: str) -> str:
    """Returns Markdown of a badge that opens a notebook of a repository in Colab."""
    colab = "https://colab.research.google.com"
    return (
        f"[![Open in Colab]({colab}/assets/colab-badge.svg)]"
        f"({colab}/github/{repository}/blob/main/notebooks/{name}.ipynb)"
    )


def _text_cell(identity: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": identity, "metadata": {}, "source": source}


def write_jupyter(path: Path, notebook: Mapping[str, Any]) -> None:
    """Writes a notebook of `to_jupyter` to an ``.ipynb`` file, atomically."""
    text = json.dumps(notebook, ensure_ascii=False, indent=1)
    write_bytes_atomically(path, f"{text}\n".encode())
