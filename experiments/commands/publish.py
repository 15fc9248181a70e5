"""adaptive-nets publish: copies records into the repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from adaptive_nets.runtime.errors import UserError
from experiments.commands.output import hint
from experiments.commands.parsing import parse
from experiments.suite.records import RECORD, check_publishable, publish, read_record

EXAMPLES = ("adaptive-nets publish runs/{id}/paper",)


@dataclasses.dataclass(frozen=True)
class Publish:
    """Copies the records below a folder into experiments/results, where documents find them."""

    folder: tyro.conf.Positional[Path]
    """Folder of a run, such as runs/ID/paper."""
    allow_dirty: bool = False
    """Accept records of code with uncommitted changes."""


def main(arguments: Sequence[str]) -> None:
    """Copies records."""
    options = parse(Publish, arguments, program="adaptive-nets publish", examples=EXAMPLES)
    paths = sorted(options.folder.rglob(RECORD))
    if not paths:
        raise UserError(f"folder {str(options.folder)!r} has no {RECORD}; expected a finished run")
    records = [read_record(path) for path in paths]
    for record in records:
        if record.code["dirty"] and not options.allow_dirty:
            commit = (record.code["commit"] or "")[:12] or "an unknown commit"
            raise UserError(
                f"{record.path} is of code with uncommitted changes to {commit}; commit and run "
                "again, or pass --allow-dirty"
            )
    for record in records:
        check_publishable(record)
    for record in records:
        print(publish(record))
    hint("adaptive-nets docs")
