"""adaptive-nets publish: copies records into the repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from adaptive_nets.runtime.errors import UserError
from experiments.commands.output import hint
from experiments.commands.parsing import parse
from experiments.shared.theory import TOLERANCE, above_theory, explained
from experiments.suite.records import RECORD, check_publishable, publish, read_record

EXAMPLES = ("adaptive-nets publish runs/{id}/paper",)


@dataclasses.dataclass(frozen=True)
class Publish:
    """Copies the records below a folder into experiments/results, where documents find them."""

    folder: tyro.conf.Positional[Path]
    """Folder of a run, such as runs/ID/paper."""
    allow_dirty: bool = False
    """Accept records of code with uncommitted changes."""
    above_theory: str = ""
    """Reason of speed-ups above the saved multiplications, noted in records that have them."""


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
        found = above_theory(record.content["metrics"])
        if found and not options.above_theory:
            name, ratio = next(iter(found.items()))
            raise UserError(
                f"{record.path} has {name} at {ratio:.2f} of the theoretical speed-up; expected at "
                f"most {TOLERANCE}: measure against a faster dense baseline, or give the reason "
                "with --above-theory"
            )
    for record in records:
        check_publishable(record)
    for record in records:
        if options.above_theory:
            metrics = explained(record.content["metrics"], options.above_theory)
            record = dataclasses.replace(record, content={**record.content, "metrics": metrics})
        print(publish(record))
    hint("adaptive-nets docs")
