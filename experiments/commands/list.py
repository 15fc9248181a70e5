"""adaptive-nets list: experiments, with cost and state."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tyro

from adaptive_nets.runtime.progress import format_seconds
from experiments.commands.layout import Column
from experiments.commands.output import is_terminal, show_listing
from experiments.commands.parsing import parse
from experiments.suite.comparison import best_verdict_text
from experiments.suite.cost import seed_costs
from experiments.suite.experiment import Experiment
from experiments.suite.records import Record, collect, default_roots
from experiments.suite.registry import load_paper, select
from experiments.suite.render import STYLES

EXAMPLES = (
    "adaptive-nets list",
    "adaptive-nets list {paper}",
    "adaptive-nets list '*.table1.*' | cut -f1,5",
)


COST_RULE = (
    "cost: measured time of one seed; ~: extrapolated from a run of another length; show ID says "
    "on which device"
)


@dataclasses.dataclass(frozen=True)
class List:
    """Lists experiments: id, the paper's cell, data, measured cost of a seed, and state."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern or beginning of an id."""
    json: bool = False
    """Print JSON instead of a table."""


def _long(costs: Sequence[dict[str, Any]]) -> str:
    return ", ".join(cost["text"] for cost in costs) or "not measured"


def _short(costs: Sequence[dict[str, Any]]) -> str:
    """Formats costs without devices, to save width on a terminal."""
    times = []
    for cost in costs:
        seconds = cost["seconds"]
        time = format_seconds(seconds) if seconds < 36_000 else f"{seconds / 3600:.0f} h"
        times.append(f"{cost['preset']} {'~' if cost['extrapolated'] else ''}{time}")
    return ", ".join(times) or "not measured"


COLUMNS = (
    Column("id"),
    Column("cell", rank=3, least=8),
    Column("data", rank=4, least=8),
    Column("cost", rank=2, text=_short, pipe=_long),
    Column("state", rank=1, style=STYLES),
)


def cell_text(experiment: Experiment) -> str:
    """Formats the table and row of the paper that an experiment reproduces."""
    row = load_paper(experiment.paper).rows[experiment.row]
    return f"{row.table}: {row.network}, {row.method}"


def listed(experiment: Experiment, records: Sequence[Record]) -> dict[str, Any]:
    """Returns the row of one experiment."""
    costs = seed_costs(experiment, records)
    return {
        "id": experiment.id,
        "paper": experiment.paper,
        "title": experiment.title,
        "cell": cell_text(experiment),
        "data": experiment.data,
        "presets": list(experiment.presets),
        "cost": [dataclasses.asdict(cost) | {"text": str(cost)} for cost in costs],
        "state": best_verdict_text(experiment, records),
    }


def main(arguments: Sequence[str]) -> None:
    """Prints the list."""
    options = parse(List, arguments, program="adaptive-nets list", examples=EXAMPLES)
    experiments = select(options.pattern)
    records = collect(default_roots())
    show_listing(
        COLUMNS,
        [listed(experiment, records) for experiment in experiments],
        as_json=options.json,
        notes=(COST_RULE,) if is_terminal() else (),
        next_commands=(f"adaptive-nets show {experiments[0].id}",),
    )
