"""Rendering of a comparison: texts of cells, and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.suite.comparison import Cell

STYLES = {
    "reproduced": "green",
    "differs": "yellow",
    "measured": "blue",
    "reduced": "cyan",
    "chosen": "magenta",
    "other row": "dim",
    "not run": "dim",
    "cited": "dim",
}


def number(value: float | None, digits: int) -> str:
    """Formats a rounded number; a dash for None."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:,.{digits}f}"


def ours_text(cell: Cell) -> str:
    """Formats our mean, with the standard deviation over several seeds."""
    if cell.ours is None or cell.group is None:
        return "–"
    text = number(cell.ours, cell.measure.digits)
    seeds = len(cell.group.records)
    return f"{text} ± {cell.deviation:.{cell.measure.digits}f}" if seeds > 1 else text


def difference_text(cell: Cell) -> str:
    """Formats our value minus the paper's, with its sign."""
    if cell.difference is None:
        return ""
    return f"{cell.difference:+,.{cell.measure.digits}f}"


def measure_text(cell: Cell) -> str:
    """Formats the name of the measure with its unit."""
    return f"{cell.measure.title}, {cell.measure.unit}"


def verdict_text(cell: Cell) -> str:
    """Formats the verdict and, in brackets, its reason."""
    return f"{cell.verdict} ({cell.reason})" if cell.reason else cell.verdict


def paper_text(cell: Cell) -> str:
    """Formats the paper's value or words; a number from memory is marked."""
    if cell.paper is None:
        return ""
    if isinstance(cell.paper, str):
        return cell.paper
    mark = " (from memory)" if cell.row.tag == "memory" else ""
    return number(cell.paper, cell.measure.digits) + mark


def block_text(cell: Cell) -> str:
    """Formats the heading of a block: the row of the paper, and our group of records."""
    return f"{cell.name}\n{cell.group.describe()}" if cell.group else cell.name


def blocks(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Groups cells by row and group of records, in order."""
    made: dict[tuple, list[Cell]] = {}
    for cell in cells:
        made.setdefault((cell.row.id, id(cell.group)), []).append(cell)
    return list(made.values())


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> str:
    """Formats a Markdown table; columns in `right` are aligned right."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown_cells(cells: Sequence[Cell]) -> str:
    """Formats the comparison as Markdown."""
    rows = []
    for block in blocks(cells):
        for i, cell in enumerate(block):
            name = block_text(cell).replace("\n", "<br>") if i == 0 else ""
            rows.append(
                (
                    name,
                    measure_text(cell),
                    paper_text(cell),
                    ours_text(cell),
                    difference_text(cell),
                    verdict_text(cell),
                )
            )
    header = ("row", "measure", "paper", "ours", "difference", "status")
    return markdown_table(header, rows, (2, 3, 4))
