"""adaptive-nets models: the zoo by name."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.files import write_json_atomically
from experiments.commands.parsing import parse


@dataclasses.dataclass(frozen=True)
class Models:
    """Lists networks: name, parameters, multiply-accumulates per image, input size, source."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern, such as 'resnet*'."""
    reference: bool = False
    """Compare parameters with the counts that others state; the pattern is of their keys."""
    json: bool = False
    """Print JSON instead of a table."""


def _matching(pattern: str, names: Sequence[str], what: str) -> list[str]:
    found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        nearest = did_you_mean(pattern, names) if len(pattern.strip("*?")) > 2 else ""
        if not nearest.startswith("did"):
            nearest = "adaptive-nets models lists all"
        raise UserError(f"no {what} matches {pattern!r}; {nearest}")
    return found


def _cache_file() -> Path:
    """Where counts are kept: a file for this version of the networks and of what traces them."""
    import adaptive_nets

    sums = hashlib.sha256()
    root = Path(adaptive_nets.__file__).parent
    for path in sorted(root.rglob("*.py")):
        sums.update(path.read_bytes())
    for package in ("jax", "flax"):
        sums.update(importlib.metadata.version(package).encode())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "adaptive_nets" / f"model-costs-{sums.hexdigest()[:16]}.json"


def _costs(names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Parameters and MACs by name, counted once for each version of the code."""
    from adaptive_nets.analysis.macs import count_cost

    path = _cache_file()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    missing = [name for name in names if name not in known]

    def count(name: str) -> None:
        known[name] = dataclasses.asdict(count_cost(name))

    _with_progress(missing, "counting", count)
    if missing:
        # Only a convenience: where it cannot be written, the next call counts again.
        with contextlib.suppress(OSError):
            write_json_atomically(path, known)
            for old in path.parent.glob("model-costs-*.json"):
                if old != path:
                    old.unlink()
    return known


def _with_progress(names: Sequence[str], what: str, action: Callable[[str], None]) -> None:
    """Calls the action for every name; a bar on standard error where that takes long."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=len(names) < 3) as progress:
        task = progress.add_task(what, total=len(names))
        for name in names:
            progress.update(task, description=f"{what} {name}")
            action(name)
            progress.advance(task)


def _print(columns: dict[str, str], texts: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, side in columns.items():
        table.add_column(column, justify="right" if side == "right" else "left", overflow="fold")
    for text in texts:
        table.add_row(*text)
    Console().print(table)


def _list(pattern: str, *, as_json: bool) -> None:
    from adaptive_nets import list_models
    from adaptive_nets.models import model_entry

    names = _matching(pattern, list_models(), "model")
    costs = _costs(names)
    rows = []
    for name in names:
        entry = model_entry(name)
        rows.append(
            {
                "name": name,
                **costs[name],
                "input_shape": list(entry.input_shape),
                "num_classes": entry.num_classes,
                "source": entry.source,
                "description": entry.description,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = {
        "name": "", "parameters": "right", "MACs": "right", "input": "", "classes": "right",
        "source": "", "what": "",
    }  # fmt: skip
    texts = [
        (
            row["name"],
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            "x".join(map(str, row["input_shape"])),
            str(row["num_classes"]),
            row["source"],
            row["description"],
        )
        for row in rows
    ]
    _print(columns, texts)


def _compare(pattern: str, *, as_json: bool) -> None:
    from adaptive_nets.analysis.reference_counts import model_count, reference_counts

    references = reference_counts()
    rows: list[dict[str, Any]] = []

    def compare(name: str) -> None:
        reference = references[name]
        ours = model_count(reference)
        rows.append(
            {
                "reference": name,
                "model": reference.model,
                "overrides": reference.overrides,
                "counted": list(reference.counted),
                "without": list(reference.without),
                "ours": ours,
                "stated": reference.parameters,
                "equal": ours == reference.parameters,
                "source": reference.source,
            }
        )

    _with_progress(_matching(pattern, list(references), "reference"), "counting", compare)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = {
        "reference": "", "model": "", "overrides": "", "ours": "right", "stated": "right",
        "equal": "", "source": "",
    }  # fmt: skip
    texts = []
    for row in rows:
        changes = [f"{key}={value}" for key, value in row["overrides"].items()]
        part = ", ".join(row["counted"]) if row["counted"] != ["params/*"] else ""
        texts.append(
            (
                row["reference"],
                f"{row['model']} {part}".strip(),
                " ".join(changes),
                f"{row['ours']:,}",
                f"{row['stated']:,}",
                "yes" if row["equal"] else "NO",
                row["source"],
            )
        )
    _print(columns, texts)
    equal = sum(row["equal"] for row in rows)
    print(f"{equal} of {len(rows)} counts are equal")


def main(arguments: Sequence[str]) -> None:
    """Prints the networks that match."""
    options = parse(Models, arguments, program="adaptive-nets models")
    (_compare if options.reference else _list)(options.pattern, as_json=options.json)
