"""adaptive-nets table: the paper's values beside ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from adaptive_nets.runtime.errors import UserError
from experiments.commands.layout import Column, Row
from experiments.commands.output import hint, is_terminal, note, show_listing
from experiments.commands.parsing import parse
from experiments.suite.comparison import VERDICT_RULES, Cell, compare
from experiments.suite.coverage import NO_COMMAND, VERDICTS, coverage
from experiments.suite.experiment import Experiment
from experiments.suite.records import Record, collect, default_roots
from experiments.suite.registry import select
from experiments.suite.render import (
    STYLES,
    difference_text,
    measure_text,
    ours_text,
    paper_text,
)

EXAMPLES = (
    "adaptive-nets table {paper}",
    "adaptive-nets table {id} --results runs",
    "adaptive-nets table {paper} --json",
    "adaptive-nets table --coverage",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Shows the paper's values beside ours, with difference and status."""

    paper: tyro.conf.Positional[str] = "*"
    """Paper, id, beginning of an id, or shell pattern."""
    results: tuple[Path, ...] = ()
    """Folders with records; those that come with the code and those in runs/ if not given."""
    coverage: bool = False
    """Count the numbers of every table and figure by status instead of showing them."""
    json: bool = False
    """Print JSON instead of tables."""


# A terminal shows values rounded as in the paper, a pipe the recorded ones.
_TERMINAL = (
    Column("measure_text", "measure"),
    Column("paper_text", "paper", rank=2, align="right"),
    Column("ours_text", "ours", rank=1, align="right"),
    Column("difference_text", "difference", rank=4, align="right"),
    Column("status", rank=3, style=STYLES),
    Column("reason", rank=5, least=12),
)
_PIPE = tuple(
    Column(key)
    for key in (
        "id", "table", "row", "measure", "unit", "preset", "seeds", "paper_value", "ours",
        "deviation", "difference", "status", "reason", "records",
    )
)  # fmt: skip


def comparison_rows(
    experiments: Sequence[Experiment], records: Sequence[Record]
) -> list[dict[str, Any]]:
    """Returns one row for each number of the papers' tables and each group of our records."""
    ids = {(experiment.paper, experiment.row): experiment.id for experiment in experiments}
    rows = []
    for title, cells in compare(experiments, records).items():
        paper = title.split(":", 1)[0]
        rows += [_row(title, ids.get((paper, cell.row.id)), cell) for cell in cells]
    return rows


def _row(title: str, name: str | None, cell: Cell) -> dict[str, Any]:
    group = cell.group
    return {
        "id": name,
        "table": title,
        "row": cell.name,
        "measure": cell.measure.name,
        "measure_text": measure_text(cell),
        "unit": cell.measure.unit,
        "preset": group.preset if group else None,
        "seeds": len(group.records) if group else 0,
        "records": group.describe() if group else None,
        "paper_value": cell.paper,
        "paper_text": paper_text(cell),
        "ours": cell.ours,
        "deviation": None if cell.ours is None else cell.deviation,
        "ours_text": ours_text(cell),
        "difference": cell.difference,
        "difference_text": difference_text(cell),
        "status": cell.verdict,
        "reason": cell.reason,
    }


def _heading(row: Row) -> str:
    lines = [f"{row['table']}: {row['row']}", row["id"], row["records"]]
    return "\n".join(line for line in lines if line)


def show_comparison(
    experiments: Sequence[Experiment],
    records: Sequence[Record],
    *,
    cited: bool = True,
    as_json: bool = False,
) -> None:
    """Prints the papers' values beside ours, and the rules of the verdicts.

    Args:
        experiments: experiments of any papers.
        records: records of the experiments.
        cited: whether to print rows that the papers only cite.
        as_json: whether to print JSON instead.
    """
    rows = comparison_rows(experiments, records)
    if not cited:
        rows = [row for row in rows if row["status"] != "cited"]
    columns = _TERMINAL if is_terminal() else _PIPE
    shown = {row["id"] for row in rows}
    notes = [
        f"{experiment.id}: the paper prints no number of this row; adaptive-nets report draws it"
        for experiment in experiments
        if experiment.id not in shown
    ]
    show_listing(columns, rows, as_json=as_json, heading=_heading, notes=[*notes, VERDICT_RULES])


_COVERAGE_TERMINAL = (
    Column("table", "table or figure", least=16),
    Column("rows_run", "rows run", rank=2, align="right"),
    Column("numbers", rank=2, align="right"),
    Column("statuses", "status of the numbers", rank=1, least=16),
)
_COVERAGE_PIPE = tuple(
    Column(key) for key in ("paper", "table", "run", "rows", "numbers", *VERDICTS)
)


def show_coverage(names: set[str], records: Sequence[Record], as_json: bool) -> None:
    """Prints how many numbers of every table and figure have which status.

    Args:
        names: papers to show.
        records: records of any experiments.
        as_json: whether to print JSON instead.
    """
    rows = [
        {"paper": part.paper, "table": part.table, "run": part.recorded, "rows": part.rows,
         "rows_run": part.rows_run, "numbers": part.numbers,
         "statuses": ", ".join(f"{part.verdicts[v]} {v}" for v in VERDICTS if part.verdicts[v]),
         **{verdict: part.verdicts[verdict] for verdict in VERDICTS}}
        for part in coverage(records)
        if part.paper in names
    ]  # fmt: skip
    columns = _COVERAGE_TERMINAL if is_terminal() else _COVERAGE_PIPE
    show_listing(
        columns, rows, as_json=as_json, heading=lambda row: row["paper"],
        notes=[f"{VERDICT_RULES} {NO_COMMAND}: no experiment measures it."],
    )  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Prints the tables."""
    options = parse(Table, arguments, program="adaptive-nets table", examples=EXAMPLES)
    experiments = select(options.paper)
    for folder in options.results:
        if not folder.is_dir():
            raise UserError(
                f"--results is {str(folder)!r}, which is not a folder; expected one with records"
            )
    records = collect(options.results or default_roots())
    if options.coverage:
        show_coverage({experiment.paper for experiment in experiments}, records, options.json)
        return
    show_comparison(experiments, records, as_json=options.json)
    if options.json:
        return
    for experiment in experiments:
        if experiment.deviations:
            note(f"{experiment.id} deviates from the paper:")
        for sentence in experiment.deviations:
            note(f"  - {sentence}")
    hint(f"adaptive-nets show {experiments[0].id}", "adaptive-nets report")
