"""Tables of a sweep: what would run, and what the runs measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.commands.layout import Column
from experiments.commands.output import is_terminal, print_json, show_listing
from experiments.launch.combinations import Combination
from experiments.launch.quoting import shell_words
from experiments.suite.experiment import Experiment

# Measures on a terminal; a pipe has all.
_SHOWN = 4


def planned_rows(
    made: Sequence[Combination], out: Path, states: Sequence[str], words: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the rows of a sweep that has not run.

    Args:
        made: combinations.
        out: folder of the runs' folders.
        states: state of each folder.
        words: arguments that all runs share.
    """
    rows = []
    for combination, state in zip(made, states, strict=True):
        folder = str(out / combination.folder)
        command = ["adaptive-nets", "run", *words, *combination.flags, "--out", folder]
        rows.append(
            {
                "values": dict(combination.values),
                "folder": folder,
                "state": state,
                "command": shell_words(command),
            }
        )
    return rows


def show_plan(fields: Sequence[str], rows: Sequence[Any], *, as_json: bool) -> None:
    """Prints what a sweep would run.

    Args:
        fields: fields that vary.
        rows: rows of `planned_rows`.
        as_json: whether to print JSON instead.
    """
    if as_json:
        print_json(rows)
        return
    columns = [Column(field, rank=0) for field in fields]
    columns += [Column("state", rank=1), Column("folder", rank=2, least=12)]
    columns += [] if is_terminal() else [Column("command")]
    show_listing(
        columns,
        [{**row, **row["values"]} for row in rows],
        notes=[f"{len(rows)} runs; --dry-run writes and starts nothing"],
    )


def summarised(rows: Sequence[Any], experiment: Experiment) -> tuple[list[str], list[dict]]:
    """Returns the names of the measures, the paper's first, and the rows with their means.

    Args:
        rows: rows of a sweep with the records of their runs.
        experiment: experiment of the runs.
    """
    names: dict[str, None] = {}
    made = []
    for row in rows:
        measures: dict[str, Any] = {}
        for name in row["records"][0].metrics if row["records"] else ():
            found = [record.metric(name) for record in row["records"]]
            values = [metric.value for metric in found if metric and metric.value is not None]
            mean = sum(values) / len(values) if values else None
            measures[name] = {
                "mean": mean,
                "deviation": _deviation(values),
                "unit": next((metric.unit for metric in found if metric), ""),
                "seeds": len(values),
            }
        names |= dict.fromkeys(measures)
        made.append(
            {
                "values": row["values"],
                "state": row["state"],
                "reason": row["reason"],
                "seeds": len(row["records"]),
                "measures": measures,
                "folder": row["folder"],
            }
        )
    first = [*experiment.measures, *(bound.measure for p in experiment.presets.values()
             for bound in p.bounds)]  # fmt: skip
    order = [name for name in dict.fromkeys(first) if name in names]
    return [*order, *(name for name in names if name not in order)], made


def _deviation(values: Sequence[float]) -> float | None:
    """Returns the standard deviation over seeds, with n - 1; None for a single seed."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _short(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


def show_summary(
    experiment: Experiment, fields: Sequence[str], rows: Sequence[Any], *, as_json: bool
) -> None:
    """Prints the values and measures of every run; means over its seeds.

    Args:
        experiment: experiment of the runs.
        fields: fields that vary.
        rows: rows with the records of their runs.
        as_json: whether to print JSON instead.
    """
    names, made = summarised(rows, experiment)
    if as_json:
        print_json(made)
        return
    shown = names[:_SHOWN] if is_terminal() else names
    columns = [Column(field) for field in fields]
    columns += [Column("state", rank=1)]
    columns += [
        Column(name, rank=2 + i, align="right", text=_short) for i, name in enumerate(shown)
    ]
    columns += [Column("seeds", rank=8), Column("folder", rank=9, least=12)]
    flat = [
        {**row, **row["values"], **{n: m["mean"] for n, m in row["measures"].items()}}
        for row in made
    ]
    units = {n: m["unit"] for row in made for n, m in row["measures"].items() if m["unit"]}
    note = "units: " + ", ".join(f"{name} {units[name]}" for name in shown if name in units)
    show_listing(columns, flat, notes=[note] if units else [])
