"""adaptive-nets bench startup: imports, listings, and the first and second start of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from adaptive_nets.training.ranges import Count
from experiments.commands.layout import Column, rounded
from experiments.commands.output import is_stdout, note, show_listing, write_measured
from experiments.commands.parsing import fill_example, parse

PROGRAM = "adaptive-nets bench startup"
COLUMNS = (
    Column("what"),
    Column("seconds", "s", rank=1, align="right", text=rounded(2)),
    Column("compile_seconds", "of it compiling, s", rank=2, align="right", text=rounded(2)),
    Column("repetitions", rank=3, align="right"),
)


@dataclasses.dataclass(frozen=True)
class Startup:
    """Times imports, listings, and the first and second start of a run, each in a new process.

    The second start of a run reads the compiled programs that the first has left.
    """

    run: str = ""
    """Experiment that is started, at preset smoke; the first with embedded data if not given."""
    data_dir: Path | None = None
    """Data root of that experiment."""
    repetitions: Count = 5
    """Processes for each import and listing, of which the median is shown."""
    json: Path | None = None
    """File for the measured values; - prints them."""


def main(arguments: Sequence[str]) -> None:
    """Times the starts."""
    options = parse(Startup, arguments, program=PROGRAM)
    from experiments.bench import startup
    from experiments.suite.registry import find_experiment

    run = find_experiment(options.run or fill_example("{id}")).id
    values = startup.time_starts(
        run=run,
        data_dir=options.data_dir,
        repetitions=options.repetitions,
        report=lambda wait: note(f"{wait.what}: {wait.seconds:.2f} s"),
    )
    rows = [dataclasses.asdict(wait) for wait in values]
    if not is_stdout(options.json):
        show_listing(COLUMNS, rows)
    write_measured(options.json, "startup", rows)
