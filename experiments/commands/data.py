"""adaptive-nets data: list, verify and prepare data sets."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro

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
from experiments.commands.layout import Column
from experiments.commands.output import console, hint, note, show_listing
from experiments.commands.parsing import parse
from experiments.commands.subcommands import dispatch_subcommand

PROGRAM = "adaptive-nets data"
STYLES = {"ok": "green", "absent": "dim", "partial": "yellow", "damaged": "red"}
COLUMNS = (
    Column("name"),
    Column("state", rank=1, style=STYLES),
    Column("source", rank=2),
    Column("message", "what", rank=3, least=24),
    Column("location", "where", rank=4),
)
EXAMPLES = {
    "list": ("adaptive-nets data list", "adaptive-nets data list --data-dir /data --json"),
    "check": ("adaptive-nets data check mnist",),
    "build": ("adaptive-nets data build imagenet /data/imagenet --hold-out 50",),
    "import": (
        "adaptive-nets data import cifar10 ~/Downloads",
        "adaptive-nets data import coco /data/coco",
        "adaptive-nets data import voc ~/cells --as cells",
    ),
}


@dataclasses.dataclass(frozen=True)
class ListData:
    """Lists data sets: the location of each, or the files that are missing."""

    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass(frozen=True)
class CheckData:
    """Reads data sets and verifies counts and checksums; exit code 2 if one is damaged."""

    name: tyro.conf.Positional[str | None] = None
    """Name of the data set; all available ones if not given."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclasses.dataclass(frozen=True)
class ImportData:
    """Makes a data set known in the data root from its official files.

    Labelled images are prepared as array_record (TFDS). Photographs with boxes, in the layout of
    COCO (instances_*.json; images in a folder or zip archive) or Pascal VOC (Annotations,
    JPEGImages, ImageSets/Main), stay where they are: every annotation and image is checked and
    indexed.
    """

    name: tyro.conf.Positional[str]
    """Name of the data set; with --as, the layout: coco or voc."""
    path: tyro.conf.Positional[Path]
    """Folder with the official files."""
    known_as: Annotated[str, tyro.conf.arg(name="as")] = ""
    """Name of your own set with boxes in one of these layouts."""
    classes: str = ""
    """Class names of a set with boxes, by label: a,b,c; those of its files if not given."""
    skip_bad: bool = False
    """Leave out wrong annotations and unreadable images of a set with boxes."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""


@dataclasses.dataclass(frozen=True)
class BuildData:
    """Builds a set of photographs as array_record (TFDS) from image files or ImageNet's archives.

    PATH holds train/ and val/ with a folder for each class, or ILSVRC2012_img_train.tar and
    ILSVRC2012_img_val.tar. If images are not in class folders, labels.csv or val_labels.txt beside
    them gives the class of each. Every image is decoded once; what is passed over is counted. An
    interrupted build resumes.
    """

    name: tyro.conf.Positional[str]
    """Name of the data set: imagenet."""
    path: tyro.conf.Positional[Path]
    """Folder with the images or the archives."""
    hold_out: int = 0
    """Without a validation part: hold out every k-th training image for it."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""


FORMS = {"list": ListData, "check": CheckData, "build": BuildData, "import": ImportData}


def _show(findings: Sequence[Finding], root: Path, *, as_json: bool) -> None:
    if not as_json:
        note(f"data root: {root}")
    rows = [
        dataclasses.asdict(finding) | {"message": finding.message.removeprefix(f"{finding.name}: ")}
        for finding in findings
    ]
    show_listing(COLUMNS, rows, as_json=as_json)


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def list_data(arguments: Sequence[str]) -> None:
    """Lists data sets without reading them."""
    options = parse(ListData, arguments, program=f"{PROGRAM} list", examples=EXAMPLES["list"])
    findings = survey(options.data_dir)
    _show(findings, data_root(options.data_dir), as_json=options.json)
    if not options.json:
        missing = [finding.name for finding in findings if finding.state != "ok"]
        hint(f"{PROGRAM} check {(missing or [findings[0].name])[0]}")


def check_data(arguments: Sequence[str]) -> None:
    """Reads and verifies data sets."""
    options = parse(CheckData, arguments, program=f"{PROGRAM} check", examples=EXAMPLES["check"])
    findings = verify(options.name, options.data_dir)
    _show(findings, data_root(options.data_dir), as_json=options.json)
    bad = [f for f in findings if f.state in ("damaged", "partial")]
    if options.name and all(f.state == "absent" for f in findings):
        raise UserError(findings[0].message)
    if bad:
        raise UserError(bad[0].message)
    if options.json:
        return
    for finding in findings:
        if finding.fingerprint:
            classes = ", ".join(
                f"{split} {_range(counts)} of each class"
                for split, counts in finding.class_counts.items()
            )
            note(f"{finding.name} ({finding.source}): {finding.message}")
            note(f"  {classes or 'no classes'}, sha256 {finding.fingerprint}")
    hint("adaptive-nets list")


@contextlib.contextmanager
def _progress(
    name: str,
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """Yields two callbacks of a long preparation: one draws a bar, one prints a remark."""
    with ConsoleProgress(console(stderr=True)) as progress:
        current = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current:
                progress.finish()
                progress.start(f"{name}: {what}", done=done, total=total, unit="examples")
                current = what
            progress.update(done)

        def remark(text: str) -> None:
            nonlocal current
            progress.finish()
            current = None
            note(f"{name}: {text}")

        yield show, remark


def import_data(arguments: Sequence[str]) -> None:
    """Prepares a set."""
    options = parse(ImportData, arguments, program=f"{PROGRAM} import", examples=EXAMPLES["import"])
    name = options.known_as or options.name
    with _progress(name) as (show, remark):
        folder = import_dataset(
            options.name,
            options.path,
            options.data_dir,
            progress=show,
            known_as=options.known_as,
            class_names=[part.strip() for part in options.classes.split(",") if options.classes],
            skip_bad=options.skip_bad,
            remark=remark,
        )
    print(f"prepared in {folder}")
    hint(f"{PROGRAM} check {name}")


def build_data(arguments: Sequence[str]) -> None:
    """Builds a set of photographs."""
    options = parse(BuildData, arguments, program=f"{PROGRAM} build", examples=EXAMPLES["build"])
    held = options.hold_out
    require(held == 0 or held > 1, "hold-out", held, "0, or 2 or more")
    with _progress(options.name) as (show, remark):
        folder = build_dataset(
            options.name,
            options.path,
            options.data_dir,
            hold_out=options.hold_out,
            progress=show,
            remark=remark,
        )
    print(f"built in {folder}")
    hint(f"{PROGRAM} check {options.name}")


def main(arguments: Sequence[str]) -> None:
    """Lists, checks, builds or imports."""
    dispatch_subcommand(
        PROGRAM,
        arguments,
        {
            "list": (list_data, "available data sets, and the files that the others need"),
            "check": (check_data, "read everything, verify counts and checksums"),
            "build": (build_data, "prepare a set of photographs, which training streams"),
            "import": (import_data, "prepare a set from its official files"),
        },
        examples=[example for examples in EXAMPLES.values() for example in examples],
    )
