"""Output of commands: tables for a terminal, and JSON files of measured values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from adaptive_nets.runtime.files import write_json_atomically
from experiments.suite import provenance


def write(path: Path | None, kind: str, values: Any, **packages: str) -> None:
    """Writes measured values with where they were measured, where a file is asked for."""
    if path is not None:
        write_json_atomically(
            path,
            {
                "benchmark": kind,
                "code": provenance.commit(),
                "packages": provenance.package_versions() | packages,
                "devices": provenance.devices(),
                "values": values,
            },
        )
        print(f"written to {path}")


def table(*columns: str) -> Table:
    """An empty table, the first column to the left."""
    empty = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        empty.add_column(column, justify="left" if i == 0 else "right")
    return empty
