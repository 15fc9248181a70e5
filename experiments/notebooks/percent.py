"""Notebooks as percent-format Python: cells, header and parameters.

A line ``# %%`` starts a cell of code, ``# %% [markdown]`` a cell of text, whose lines are comments.
Lines before the first cell are the header of jupytext.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from adaptive_nets.runtime.errors import UserError

FOLDER = Path(__file__).parent
PARAMETERS = "parameters"
"""Tag of the cell whose values can be replaced."""

_MARKER = re.compile(r"# %%(?P<title>[^\[]*?)(?P<text>\[markdown\])?\s*(?P<tags>tags=.*)?")


@dataclasses.dataclass(frozen=True)
class Cell:
    """Cell of a notebook.

    Attributes:
        source: text of the cell; that of markdown without the comment signs.
        is_code: whether it is code rather than markdown.
        line: number of the cell's first line in the file, from 1, after its marker.
        tags: tags of the cell.
    """

    source: str
    is_code: bool
    line: int
    tags: tuple[str, ...] = ()


def notebook_paths(folder: Path = FOLDER) -> list[Path]:
    """Returns the notebooks of a folder, ``NN_name.py``, in order of their numbers."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def find_notebooks(names: list[str], folder: Path = FOLDER) -> list[Path]:
    """Finds notebooks by number, name or file name.

    Args:
        names: for example ``03``, ``03_ponder_maps`` or ``03_ponder_maps.py``; none for all.
        folder: folder of the notebooks.

    Raises:
        UserError: a name is of no notebook.
    """
    paths = notebook_paths(folder)
    if not names:
        return paths
    found = []
    for name in names:
        matches = [
            path
            for path in paths
            if Path(name).name in (path.name, path.stem) or path.stem.split("_", 1)[0] == name
        ]
        if not matches:
            known = ", ".join(path.stem for path in paths)
            raise UserError(f"notebook {name!r} is unknown; expected one of {known}")
        found += matches
    return found


def read_cells(path: Path) -> list[Cell]:
    """Reads the cells of a notebook.

    Raises:
        UserError: the file cannot be read, or has no cells.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"notebook {path} cannot be read: {error}") from error
    starts = [number for number, line in enumerate(lines) if line.startswith("# %%")]
    if not starts:
        raise UserError(f"notebook {path} has no cells; expected lines that start with '# %%'")
    return [
        _cell(lines[start], lines[start + 1 : end], start + 2)
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]


def _cell(marker: str, lines: list[str], line: int) -> Cell:
    match = _MARKER.fullmatch(marker.rstrip())
    is_text = match is not None and match["text"] is not None
    tags = tuple(re.findall(r'"([^"]+)"', (match["tags"] or "") if match else ""))
    if is_text:
        lines = [re.sub(r"^# ?", "", text) for text in lines]
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    while lines and not lines[0].strip():
        lines, line = lines[1:], line + 1
    return Cell("\n".join(lines), not is_text, line, tags)
