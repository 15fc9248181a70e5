"""Tables of numbers for the terminal and for Markdown, from records alone."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from experiments.comparison import Cell

STYLES = {
    "reproduced": "green",
    "differs": "yellow",
    "reduced": "cyan",
    "not run": "dim",
    "cited": "dim",
}


def number(value: float | None, digits: int) -> str:
    """A rounded number, or a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def ours_text(cell: Cell) -> str:
    """Our mean, with the standard deviation where there are several seeds."""
    if cell.ours is None or cell.group is None:
        return "–"
    text = number(cell.ours, cell.measure.digits)
    seeds = len(cell.group.records)
    return f"{text} ± {cell.deviation:.{cell.measure.digits}f}" if seeds > 1 else text


def difference_text(cell: Cell) -> str:
    """Ours minus the paper's, with its sign."""
    if cell.difference is None:
        return ""
    return f"{cell.difference:+.{cell.measure.digits}f}"


def measure_text(cell: Cell) -> str:
    """Name of the measure with its unit."""
    return f"{cell.measure.title}, {cell.measure.unit}"


def verdict_text(cell: Cell) -> str:
    """The verdict and, in brackets, its reason."""
    return f"{cell.verdict} ({cell.reason})" if cell.reason else cell.verdict


def paper_text(cell: Cell) -> str:
    """The paper's value; a number from memory is marked."""
    mark = " (from memory)" if cell.row.tag == "memory" else ""
    return number(cell.paper, cell.measure.digits) + mark


def terminal_table(title: str, cells: Sequence[Cell]) -> Table:
    """A table for the screen."""
    table = Table(title=title, title_justify="left", header_style="bold", title_style="bold")
    for column, justify in (
        ("row", "left"), ("measure", "left"), ("paper", "right"), ("ours", "right"),
        ("difference", "right"), ("status", "left"),
    ):  # fmt: skip
        table.add_column(column, justify=justify)  # pyright: ignore[reportArgumentType]
    previous = None
    for cell in cells:
        block = (cell.row.id, id(cell.group))
        if previous is not None and block != previous:
            table.add_section()
        first = block != previous
        previous = block
        name = f"{cell.row.network}, {cell.row.method}" if first else ""
        table.add_row(
            name, measure_text(cell), paper_text(cell), ours_text(cell), difference_text(cell),
            f"[{STYLES[cell.verdict]}]{verdict_text(cell)}[/]",
        )  # fmt: skip
    return table


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> str:
    """A Markdown table; columns in `right` are aligned right."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown_cells(cells: Sequence[Cell]) -> str:
    """The comparison as Markdown."""
    rows = [
        (
            f"{c.row.network}, {c.row.method}", measure_text(c), paper_text(c), ours_text(c),
            difference_text(c), verdict_text(c),
        )
        for c in cells
    ]  # fmt: skip
    return markdown_table(
        ("row", "measure", "paper", "ours", "difference", "status"), rows, (2, 3, 4)
    )
