"""adaptive-nets data: what is there, whether it is whole, and how to prepare it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from adaptive_nets.data import (
    Finding,
    build_dataset,
    data_root,
    import_dataset,
    survey,
    verify,
)
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ConsoleProgress
from adaptive_nets.training.config import require
from experiments.commands.parsing import parse
from experiments.commands.subcommands import dispatch_subcommand

PROGRAM = "adaptive-nets data"
STYLES = {"ok": "green", "absent": "dim", "partial": "yellow", "damaged": "red"}


@dataclasses.dataclass(frozen=True)
class ListData:
    """Lists data sets: where each was found, or which files to put where."""

    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""


@dataclasses.dataclass(frozen=True)
class CheckData:
    """Reads data sets whole and verifies counts and checksums; exit code 2 if one is damaged."""

    name: tyro.conf.Positional[str | None] = None
    """One data set; all that are there where not given."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""


@dataclasses.dataclass(frozen=True)
class ImportData:
    """Prepares a data set from its official files as array_record (TFDS) in the data root."""

    name: tyro.conf.Positional[str]
    """Name of the data set."""
    path: tyro.conf.Positional[Path]
    """Folder with the official files."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""


@dataclasses.dataclass(frozen=True)
class BuildData:
    """Builds a set of photographs as array_record (TFDS) from image files or ImageNet's archives.

    PATH holds train/ and val/ with a folder for each class, or ILSVRC2012_img_train.tar and
    ILSVRC2012_img_val.tar. Where images are in no class folder, labels.csv or val_labels.txt beside
    them says the class of each. A build that was stopped goes on where it was.
    """

    name: tyro.conf.Positional[str]
    """Name of the data set: imagenet."""
    path: tyro.conf.Positional[Path]
    """Folder with the images or the archives."""
    hold_out: int = 0
    """Without a validation part: set every so-manieth training image aside for it."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""


def _show(findings: Sequence[Finding]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "state", "source", "where", "what"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(
            finding.name,
            f"[{STYLES[finding.state]}]{finding.state}[/]",
            finding.source or "",
            finding.location or "",
            finding.message,
        )
    Console().print(table)


def list_data(arguments: Sequence[str]) -> None:
    """Prints what is there without reading it."""
    options = parse(ListData, arguments, program=f"{PROGRAM} list")
    findings = survey(options.data_dir)
    print(f"data root: {data_root(options.data_dir)}")
    _show(findings)


def check_data(arguments: Sequence[str]) -> None:
    """Reads and verifies."""
    options = parse(CheckData, arguments, program=f"{PROGRAM} check")
    findings = verify(options.name, options.data_dir)
    print(f"data root: {data_root(options.data_dir)}")
    _show(findings)
    for finding in findings:
        if finding.fingerprint:
            per_class = {
                split: f"{min(counts)}-{max(counts)} of each class"
                for split, counts in finding.class_counts.items()
            }
            print(f"{finding.name} ({finding.source}): {per_class}, sha256 {finding.fingerprint}")
    bad = [f for f in findings if f.state in ("damaged", "partial")]
    if options.name and all(f.state == "absent" for f in findings):
        raise UserError(findings[0].message)
    if bad:
        raise UserError(bad[0].message)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """What a long preparation reports to."""
    with ConsoleProgress() as progress:
        current = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current:
                progress.finish()
                progress.start(f"{name}: {what}", done=done, total=total, unit="examples")
                current = what
            progress.update(done)

        yield show


def import_data(arguments: Sequence[str]) -> None:
    """Prepares a set."""
    options = parse(ImportData, arguments, program=f"{PROGRAM} import")
    with _progress(options.name) as show:
        folder = import_dataset(options.name, options.path, options.data_dir, progress=show)
    print(f"prepared in {folder}")
    print(f"next: adaptive-nets data check {options.name}")


def build_data(arguments: Sequence[str]) -> None:
    """Builds a set of photographs."""
    options = parse(BuildData, arguments, program=f"{PROGRAM} build")
    held = options.hold_out
    require(held == 0 or held > 1, "hold-out", held, "0, or 2 or more")
    with _progress(options.name) as show:
        folder = build_dataset(
            options.name, options.path, options.data_dir, hold_out=options.hold_out, progress=show
        )
    print(f"built in {folder}")
    print(f"next: adaptive-nets data check {options.name}")


def main(arguments: Sequence[str]) -> None:
    """Lists, checks or imports."""
    dispatch_subcommand(
        PROGRAM,
        arguments,
        {
            "list": (list_data, "what is there, and which files belong where"),
            "check": (check_data, "read everything, verify counts and checksums"),
            "build": (
                build_data,
                "records of photographs, which are read while training",
            ),
            "import": (import_data, "prepare a set from its official files"),
        },
    )
