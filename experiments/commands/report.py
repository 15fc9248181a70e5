"""adaptive-nets report: one HTML page with tables, curves and pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import is_stream, write_text_atomically
from adaptive_nets.training.ranges import Range
from experiments.commands.output import note
from experiments.commands.parsing import parse
from experiments.suite.experiment import Experiment
from experiments.suite.records import PUBLISHED, Record, collect, default_roots
from experiments.suite.registry import select

EXAMPLES = (
    "adaptive-nets report {paper} --out {paper}.html",
    "adaptive-nets report {paper} --serve",
)


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes one HTML page from the records of runs; it opens from disk and needs no network."""

    pattern: tyro.conf.Positional[str] = "*"
    """Paper, id, beginning of an id, or shell pattern of the experiments that it shows."""
    out: Path = Path("report.html")
    """File to write."""
    results: tuple[Path, ...] = ()
    """Folders with records; those that come with the code and those in runs/ if not given."""
    serve: bool = False
    """Serve the page on this machine instead of writing it, and refresh it while runs go on."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """With --serve: port to listen on; 0 for any free one."""


def _records(options: Report, chosen: Sequence[Experiment]) -> list[Record]:
    """Returns the records that the page shows."""
    ids = {experiment.id for experiment in chosen}
    records = collect(options.results or default_roots())
    if options.pattern != "*":
        records = [record for record in records if record.experiment in ids]
    return records


def _serve(options: Report, chosen: Sequence[Experiment]) -> None:
    """Serves the page until ^C."""
    from experiments.report.page import render
    from experiments.report.serving import ReportServer

    def rendered() -> str:
        now = datetime.datetime.now(datetime.UTC)
        return render(_records(options, chosen), rendered=now, experiments=chosen)

    roots = options.results or default_roots()
    with ReportServer(rendered, roots, published=PUBLISHED, port=options.port) as server:
        print(f"{server.address}: the report, refreshed while runs go on; ^C stops it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    """Renders the page and prints its path, or serves it."""
    options = parse(Report, arguments, program="adaptive-nets report", examples=EXAMPLES)
    for folder in options.results:
        if not folder.is_dir():
            raise UserError(
                f"--results is {str(folder)!r}, which is not a folder; expected one with records"
            )
    streamed = is_stream(options.out)
    if options.out.is_dir():
        raise UserError(
            f"--out is {str(options.out)!r}, which is a folder; expected a file such as "
            f"{options.out / Report.out.name}"
        )
    chosen = select(options.pattern)
    if options.serve:
        _serve(options, chosen)
        return
    records = _records(options, chosen)

    # Imported after all checks, since Matplotlib takes a second.
    from experiments.report.page import render

    page = render(records, rendered=datetime.datetime.now(datetime.UTC), experiments=chosen)
    try:
        write_text_atomically(options.out, page)
    except BrokenPipeError:
        raise  # The reader of a stream went away, as for any output.
    except OSError as error:
        raise UserError(
            f"--out is {str(options.out)!r}, which cannot be written ({error.strerror}); "
            "expected a file in a folder that can"
        ) from error
    size = len(page.encode())
    plural = "" if len(records) == 1 else "s"
    # Standard output may be the page itself.
    say = note if streamed else print
    say(f"{options.out}: {size / 1000:,.0f} kB from {len(records)} record{plural}")
    if records and not streamed:
        print("next: open it in a browser; it can be sent as it is")
    elif not records:
        say("next: adaptive-nets list   (no record yet: the page says what to run)")
