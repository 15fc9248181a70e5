"""Coverage: how many numbers of every table and figure our records reproduce."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from experiments.suite.comparison import Cell, compare_row
from experiments.suite.records import Record
from experiments.suite.registry import load_paper, papers
from experiments.suite.render import markdown_table

NO_COMMAND = "no command"
"""Verdict of a number that no experiment of this suite measures."""
VERDICTS = (
    "reproduced", "differs", "measured", "reduced", "chosen", "not run", NO_COMMAND, "cited",
)  # fmt: skip
"""Columns of the coverage, in order; every number has one of these verdicts."""


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Numbers of a table or figure by verdict.

    Attributes:
        paper: name of the paper's folder.
        table: name of the table or figure.
        verdicts: verdict -> number of the paper's numbers.
        rows: number of rows that an experiment reproduces.
        recorded: number of these with a record.
    """

    paper: str
    table: str
    verdicts: Counter[str]
    rows: int
    recorded: int

    @property
    def rows_run(self) -> str:
        """Rows with a record, "2 of 3"; a dash if no experiment reproduces a row."""
        return f"{self.recorded} of {self.rows}" if self.rows else "–"

    @property
    def numbers(self) -> int:
        """Number of the paper's numbers; 0 for a figure whose values the paper does not print."""
        return sum(self.verdicts.values())


def counts(
    cells: Iterable[Cell], verdict_of: Callable[[Cell], str] = lambda cell: cell.verdict
) -> Counter[str]:
    """Counts the paper's numbers by verdict, every number once.

    If a number has several runs, the first at full size counts, which is the one without changed
    flags; if none is at full size, a reduced one counts. Runs of other rows do not count.
    """
    by_number: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell.verdict == "other row":
            continue
        key = (cell.row.table, cell.row.id, cell.measure.name)
        by_number.setdefault(key, []).append(verdict_of(cell))
    best = []
    for verdicts in by_number.values():
        full = [v for v in verdicts if v in ("reproduced", "differs", "measured")]
        best.append(full[0] if full else "reduced" if "reduced" in verdicts else verdicts[0])
    return Counter(best)


def coverage(records: Sequence[Record]) -> list[Coverage]:
    """Counts the numbers of all tables and figures of all papers, in the papers' order."""
    recorded = {record.experiment for record in records}
    found = []
    for name, entry in papers().items():
        paper = load_paper(name)
        by_row = {experiment.row: experiment for experiment in entry.experiments}
        for table in dict.fromkeys(row.table for row in paper.rows.values()):
            rows = [row for row in paper.rows.values() if row.table == table]
            cells = [
                cell
                for row in rows
                for cell in compare_row(paper, row, by_row.get(row.id), records)
            ]
            verdicts = counts(cells, functools.partial(_verdict, run=set(by_row)))
            ours = [by_row[row.id].id for row in rows if row.id in by_row]
            done = sum(identity in recorded for identity in ours)
            found.append(Coverage(name, table, verdicts, len(ours), done))
    return found


def _verdict(cell: Cell, run: set[str]) -> str:
    """Returns the verdict; `run` has the rows of experiments."""
    measured = cell.row.id in run and not cell.measure.unmeasured
    return NO_COMMAND if cell.verdict == "not run" and not measured else cell.verdict


def of_papers(found: Sequence[Coverage]) -> list[Coverage]:
    """Sums the coverage of the tables of each paper."""
    sums = []
    for paper in dict.fromkeys(part.paper for part in found):
        parts = [part for part in found if part.paper == paper]
        verdicts = sum((part.verdicts for part in parts), Counter())
        rows, recorded = (sum(getattr(p, name) for p in parts) for name in ("rows", "recorded"))
        sums.append(Coverage(paper, "", verdicts, rows, recorded))
    return sums


def table_part(records: Sequence[Record]) -> str:
    """Formats the coverage of every table and figure as Markdown."""
    found = coverage(records)
    lines, last = [], ""
    for part in found:
        paper = f"`{part.paper}`" if part.paper != last else ""
        lines.append((paper, part.table, *_numbers(part)))
        last = part.paper
    return markdown_table(
        ("paper", "table or figure", *_HEADER), lines, range(2, 4 + len(VERDICTS))
    )


def paper_part(records: Sequence[Record]) -> str:
    """Formats the coverage of every paper as Markdown, with a line for all of them."""
    sums = of_papers(coverage(records))
    lines = []
    for part in sums:
        title = load_paper(part.paper).title
        lines.append((f"[{title}](experiments/papers/{part.paper}/README.md)", *_numbers(part)))
    verdicts = sum((part.verdicts for part in sums), Counter())
    whole = Coverage(
        "", "", verdicts, sum(p.rows for p in sums), sum(p.recorded for p in sums)
    )  # fmt: skip
    lines.append(("all", *_numbers(whole)))
    return markdown_table(("paper", *_HEADER), lines, range(1, 3 + len(VERDICTS)))


_HEADER = ("rows run", "numbers", *VERDICTS)


def _numbers(part: Coverage) -> tuple[str, ...]:
    numbers = [str(part.numbers or "–"), *(str(part.verdicts[v] or "") for v in VERDICTS)]
    return (part.rows_run, *numbers)
