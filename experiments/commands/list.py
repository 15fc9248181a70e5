"""adaptive-nets list: what can be run, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median

import tyro
from rich.console import Console
from rich.table import Table

from adaptive_nets.runtime.progress import format_seconds
from experiments.commands.parsing import parse
from experiments.suite.comparison import best_verdict_text
from experiments.suite.experiment import PRESETS, Experiment
from experiments.suite.records import Record, collect, default_roots
from experiments.suite.registry import load_paper, select


@dataclasses.dataclass(frozen=True)
class List:
    """Lists experiments: id, the paper's cell, data, measured cost of a seed, and state."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern or beginning of an id, such as 'PAPER.table1*'."""


def cell_text(experiment: Experiment) -> str:
    """Where in the paper the experiment's numbers stand."""
    row = load_paper(experiment.paper).rows[experiment.row]
    return f"{row.table}: {row.network}, {row.method}"


def cost_text(experiment: Experiment, records: Sequence[Record]) -> str:
    """Measured time of one seed per preset, with the device; a dash where none is recorded."""
    parts = []
    for preset in PRESETS:
        runs = [r for r in records if r.experiment == experiment.id and r.preset == preset]
        if runs:
            device = runs[0].devices
            where = (
                f"{device['cpu_cores']} cores" if device["platform"] == "cpu" else device["kind"]
            )
            parts.append(f"{preset} {format_seconds(median(r.seconds for r in runs))} on {where}")
    return ", ".join(parts) or "not measured"


def main(arguments: Sequence[str]) -> None:
    """Prints the list."""
    options = parse(List, arguments, program="adaptive-nets list")
    experiments = select(options.pattern)
    records = collect(default_roots())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "paper's cell", "data", "cost of a seed", "state"):
        table.add_column(column, overflow="fold")
    for experiment in experiments:
        table.add_row(
            experiment.id,
            cell_text(experiment),
            experiment.data,
            cost_text(experiment, records),
            best_verdict_text(experiment, records),
        )
    Console().print(table)
