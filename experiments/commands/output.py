"""Output of commands: tables on a terminal, tab-separated lines in a pipe, and JSON.

Standard output carries rows and nothing else. Remarks, progress and the next command go to standard
error, so that ``adaptive-nets list | grep ID`` and ``adaptive-nets models --json | jq`` work.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from adaptive_nets.runtime.files import write_json_atomically
from experiments.commands.layout import Column, Row, json_value, plain, table_lines, wrap

_STDOUT = (Path("-"), Path("/dev/stdout"))
# Of the other work on the machine: a benchmark raises the load itself. Unknown on some systems.
_LOAD_AT_START = [round(v, 2) for v in os.getloadavg()[:2]] if hasattr(os, "getloadavg") else []


def is_stdout(path: Path | None) -> bool:
    """Returns whether a file for measured values is standard output, which is then JSON alone."""
    return path in _STDOUT


def is_terminal() -> bool:
    """Returns whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def terminal_width() -> int:
    """Returns the columns of the terminal: $COLUMNS, else its size, else 80."""
    return shutil.get_terminal_size((80, 24)).columns


class _PlainConsole(Console):
    """Console that leaves a closed pipe to the command line, as `print` does."""

    def on_broken_pipe(self) -> None:
        """Raises again instead of ending the process with code 1."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """Returns a console that emits no escape code at all if $NO_COLOR is set."""
    if os.environ.get("NO_COLOR"):
        return _PlainConsole(
            stderr=stderr, color_system=None, force_terminal=False, highlight=False, markup=False
        )
    return _PlainConsole(stderr=stderr, highlight=False, markup=False)


def note(text: str) -> None:
    """Prints a remark on standard error, wrapped between words on a terminal."""
    if sys.stdout is not None:
        sys.stdout.flush()
    on_screen = sys.stderr is not None and sys.stderr.isatty()
    lines = wrap(text, terminal_width()) if on_screen else [text]
    for line in lines:
        console(stderr=True).print(line, soft_wrap=True)


def hint(*commands: str) -> None:
    """Prints on a terminal the commands to type next, one a line."""
    if is_terminal():
        for i, command in enumerate(commands):
            note(f"next: {command}" if i == 0 else f"      {command}")


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    print(json.dumps(json_value(value), indent=2, allow_nan=False))


def print_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints tab-separated lines below a header."""
    for line in (header, *rows):
        print("\t".join(line))


def show_listing(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    as_json: bool = False,
    heading: Callable[[Row], str] | None = None,
    notes: Sequence[str] = (),
    next_commands: Sequence[str] = (),
) -> None:
    """Prints a listing: a table on a terminal, tab-separated lines in a pipe, or JSON.

    Args:
        columns: columns on a terminal and in a pipe.
        rows: values by key; JSON has every key, also those without a column.
        as_json: whether to print JSON instead.
        heading: text printed on a terminal above the rows that share it.
        notes: remarks; not printed with JSON.
        next_commands: commands to type next; printed on a terminal.
    """
    if as_json:
        print_json(rows)
        return
    if is_terminal():
        _print_table(columns, rows, heading)
    else:
        print_lines(
            [column.key for column in columns],
            [[column.pipe(row.get(column.key)) for column in columns] for row in rows],
        )
    for text in notes:
        note(text)
    if next_commands:
        hint(*next_commands)


def _print_table(
    columns: Sequence[Column], rows: Sequence[Row], heading: Callable[[Row], str] | None
) -> None:
    screen, width = console(), terminal_width()
    for line in table_lines(columns, rows, width=width, heading=heading):
        # Rich would break or crop a line that is longer than the screen.
        screen.print(line, soft_wrap=True)


def show_fields(content: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Prints the values of an object, one per line, with aligned names on a terminal."""
    if as_json:
        print_json(content)
    elif not is_terminal():
        print_lines(["field", "value"], [[key, plain(value)] for key, value in flat(content)])
    else:
        screen, fields = console(), flat(content)
        side = max(len(name) for name, _ in fields) + 2
        for name, value in fields:
            text = f"{value:.4g}" if isinstance(value, float) else plain(value)
            first, *rest = wrap(text, terminal_width(), " " * side)
            screen.print(f"{name.replace('_', ' '):<{side}}{first.strip()}", soft_wrap=True)
            for line in rest:
                screen.print(line, soft_wrap=True)


def flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Returns names and values, those of an inner mapping as 'outer.inner'."""
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def write_measured(path: Path | None, kind: str, values: Any, **packages: str) -> None:
    """Writes measured values as JSON, with code, packages and devices.

    Args:
        path: file; "-" prints them, None does nothing.
        kind: name of the benchmark.
        values: measured values.
        **packages: versions of further packages.
    """
    if path is None:
        return
    from experiments.suite import provenance

    content = {
        "benchmark": kind,
        "code": provenance.commit(),
        "packages": provenance.package_versions() | packages,
        "devices": provenance.devices(),
        "machine": {"load_at_start": _LOAD_AT_START, "governor": provenance.governor()},
        "values": values,
    }
    if is_stdout(path):
        print_json(content)
    else:
        write_json_atomically(path, json_value(content))
        note(f"written to {path}")
