"""Tables of tuned tiles, `<device_kind>/<op>.json`, one per kind of device and operation.

    {"device_kind": "NVIDIA H100", "implementations": {"pallas_triton": {"<problem key>": ENTRY}}}

An ENTRY has "tile" (fields of a TileConfig), "seconds", "versions", and "candidates": a list of
"tile" with "seconds" or "error".
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def table_path(device_kind: str, op: str, folder: Path | None = None) -> Path:
    """Returns the path of the table of a device kind and an operation."""
    kind = re.sub(r"[^a-z0-9]+", "_", device_kind.lower()).strip("_")
    return (folder or FOLDER) / kind / f"{op}.json"


def read_table(device_kind: str, op: str, folder: Path | None = None) -> dict[str, Any] | None:
    """Reads a table; returns None if it does not exist.

    Raises:
        ValueError: the file is not a table of tuned tiles, or is for another device kind.
    """
    path = table_path(device_kind, op, folder)
    try:
        table = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(table, dict) or not isinstance(table.get("implementations"), dict):
        raise ValueError(
            f"{path} is not a table of tuned tiles; expected a JSON object with 'implementations', "
            "as written by `adaptive-nets bench autotune`"
        )
    if table.get("device_kind") != device_kind:
        raise ValueError(f"{path} is for {table.get('device_kind')!r}; expected {device_kind!r}")
    return table


def write_table(table: dict[str, Any], op: str, folder: Path | None = None) -> Path:
    """Writes a table atomically and returns its path."""
    path = table_path(table["device_kind"], op, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    new.replace(path)
    _cached_table.cache_clear()
    return path


def lookup(device_kind: str, op: str, implementation: str, key: str) -> dict[str, int] | None:
    """Returns the fields of the tuned tile of a problem, or None."""
    table = _cached_table(device_kind, op, FOLDER)
    if table is None:
        return None
    entry = table["implementations"].get(implementation, {}).get(key)
    return None if entry is None else entry["tile"]


@functools.cache
def _cached_table(device_kind: str, op: str, folder: Path) -> dict[str, Any] | None:
    return read_table(device_kind, op, folder)
