"""adaptive-nets table: the paper's values beside ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from adaptive_nets.runtime.errors import UserError
from experiments.commands.parsing import parse
from experiments.suite.comparison import VERDICT_RULES, compare
from experiments.suite.records import collect, default_roots
from experiments.suite.registry import select
from experiments.suite.render import terminal_table


@dataclasses.dataclass(frozen=True)
class Table:
    """Shows the paper's values beside ours, with difference and status."""

    paper: tyro.conf.Positional[str] = "*"
    """Paper, id, beginning of an id, or shell pattern."""
    results: tuple[Path, ...] = ()
    """Folders with records; those that come with the code and those in runs/ where not given."""


def main(arguments: Sequence[str]) -> None:
    """Prints the tables."""
    options = parse(Table, arguments, program="adaptive-nets table")
    experiments = select(options.paper)
    for folder in options.results:
        if not folder.is_dir():
            raise UserError(
                f"--results is {str(folder)!r}, which is no folder; expected one with records"
            )
    records = collect(options.results or default_roots())
    console = Console()
    for title, cells in compare(experiments, records).items():
        console.print(terminal_table(title, cells))
    deviations = {e.id: e.deviations for e in experiments if e.deviations}
    for name, sentences in deviations.items():
        console.print(f"{name} deviates from the paper:", markup=False)
        for sentence in sentences:
            console.print(f"  - {sentence}", markup=False)
    console.print(VERDICT_RULES, style="dim")
