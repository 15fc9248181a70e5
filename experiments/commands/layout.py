"""Layout of listings: columns that fit a terminal, and values as plain text."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size
from rich.text import Text

Row = Mapping[str, Any]
_GAP = "  "


def json_value(value: Any) -> Any:
    """Converts a value to JSON types.

    Tuples become lists, paths strings, scalars of NumPy and JAX numbers; infinities and NaN null.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def plain(value: Any) -> str:
    """Formats a value for a pipe, without thousands separators, tabs and line breaks."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return json.dumps(json_value(value))
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return " ".join(str(value).split())


def rounded(digits: int, factor: float = 1.0) -> Callable[[Any], str]:
    """Returns a function that formats a number times a factor; None becomes a dash."""
    return lambda value: "–" if value is None else f"{factor * value:.{digits}f}"


def grouped(value: int) -> str:
    """Formats an integer with thousands separators."""
    return f"{value:,}"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a listing.

    Attributes:
        key: entry of a row, and the heading in a pipe.
        title: heading on a terminal; the key if empty.
        rank: order in which columns keep their place on a narrow terminal. Rank 0 is always shown
            whole; the largest rank is shortened or left out first.
        least: width down to which the text may be shortened; None if it is shown whole or not at
            all.
        align: side on a terminal.
        text: function that formats the value for a terminal.
        pipe: function that formats the value for a pipe.
        style: style of a value on a terminal, by its text.
    """

    key: str
    title: str = ""
    rank: int = 0
    least: int | None = None
    align: Literal["left", "right"] = "left"
    text: Callable[[Any], str] = plain
    pipe: Callable[[Any], str] = plain
    style: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Heading on a terminal."""
        return self.title or self.key.replace("_", " ")


def table_lines(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    width: int,
    heading: Callable[[Row], str] | None = None,
) -> list[Text]:
    """Lays out a listing for a terminal, one line for each row.

    Args:
        columns: columns in order.
        rows: values by key.
        width: columns of the terminal. Columns of rank 0 are shown whole even if they need more.
        heading: text above the rows that share it.
    """
    if not rows:
        return []
    cells = {c.key: [c.text(row.get(c.key)) for row in rows] for c in columns}
    columns = [c for c in columns if c.rank == 0 or any(cells[c.key])]
    indent = _GAP if heading else ""
    widths = fit_columns(
        [(c, max(map(cell_len, (c.heading, *cells[c.key])))) for c in columns],
        width - len(indent),
    )
    shown = [(c, widths[c.key]) for c in columns if c.key in widths]
    lines = [_line([(c, w, c.heading, "bold") for c, w in shown], indent)]
    current = None
    for i, row in enumerate(rows):
        title = heading(row) if heading else None
        if title != current:
            wrapped = wrap(title or "", width)
            lines += [Text(part, "bold") for part in wrapped]
            current = title
        texts = [(c, w, cells[c.key][i]) for c, w in shown]
        lines.append(_line([(c, w, t, c.style.get(t, "")) for c, w, t in texts], indent))
    return lines


def fit_columns(columns: Sequence[tuple[Column, int]], width: int) -> dict[str, int]:
    """Chooses columns and their widths.

    Columns are taken by rank as long as they fit, shortened if need be; one that does not fit is
    skipped. Of those taken, the largest rank is shortened first.

    Args:
        columns: columns, each with the width of its longest text.
        width: total width of the columns.

    Returns:
        Key -> width of the columns that stay.
    """

    def least(column: Column, needed: int) -> int:
        if column.rank == 0 or column.least is None:
            return needed
        return min(needed, max(column.least, cell_len(column.heading)))

    def total(widths: Sequence[int]) -> int:
        return sum(widths) + len(_GAP) * (len(widths) - 1)

    taken: list[tuple[Column, int]] = []
    for column in sorted(columns, key=lambda item: item[0].rank):
        if column[0].rank == 0 or total([least(*c) for c in (*taken, column)]) <= width:
            taken.append(column)
    kept = [column for column in columns if column in taken]
    widths = {column.key: needed for column, needed in kept}
    for column, needed in sorted(kept, key=lambda item: -item[0].rank):
        excess = total(list(widths.values())) - width
        if excess > 0:
            widths[column.key] = max(least(column, needed), needed - excess)
    return widths


def _line(cells: Sequence[tuple[Column, int, str, str]], indent: str) -> Text:
    line = Text(indent)
    for i, (column, width, text, style) in enumerate(cells):
        if cell_len(text) > width:
            text = set_cell_size(text, width - 1).rstrip() + "…"
        pad = " " * (width - cell_len(text))
        line.append(_GAP if i else "")
        line.append(pad if column.align == "right" else "")
        line.append(text, style)
        line.append(pad if column.align == "left" else "")
    line.rstrip()
    return line


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Breaks a text into lines between words, so that no id, name or path is broken."""
    lines = []
    for line in text.splitlines() or [""]:
        lines += textwrap.wrap(
            line,
            max(width, len(indent) + 1),
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return lines
