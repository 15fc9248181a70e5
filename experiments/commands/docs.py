"""adaptive-nets docs: tables and pictures of documents, rendered from records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_text_atomically
from experiments.commands.parsing import parse
from experiments.suite.documents import GENERAL, Part, paper_parts, update
from experiments.suite.records import PUBLISHED, collect
from experiments.suite.registry import papers

ROOT = Path(__file__).parent.parent.parent
PICTURES = PUBLISHED / "figures"
EXAMPLES = ("adaptive-nets docs --check",)


@dataclasses.dataclass(frozen=True)
class Docs:
    """Renders the tables and pictures of the documentation again from the published records."""

    check: bool = False
    """Change nothing; exit code 2 if a document is stale."""
    results: tuple[Path, ...] = ()
    """Folders with records; those that come with the code if not given."""


def document_paths() -> list[Path]:
    """Returns the documents of this checkout, and the README of every paper."""
    ours = [ROOT / "README.md", ROOT / "BUILD_NOTES.md", ROOT / "kernels" / "README.md"]
    ours += sorted((ROOT / "docs").rglob("*.md"))
    readmes = [entry.folder / "README.md" for entry in papers().values()]
    return [path for path in (*ours, *readmes) if path.exists()]


def all_parts() -> dict[str, Part]:
    """Returns every part that a document may name."""
    from experiments.bench import tables

    benchmarks: dict[str, Part] = {
        name: lambda records, make=make: make() for name, make in tables.PARTS.items()
    }
    return {**GENERAL, **benchmarks, **paper_parts()}


def stale_pictures() -> dict[Path, str]:
    """Returns the pictures of papers and benchmarks that differ from the committed ones."""
    from experiments.bench import tables
    from experiments.bench.kernel_figure import draw

    records = collect([PUBLISHED])
    drawn = {"kernel-speedups.svg": draw(tables.kernel_cases())}
    for entry in papers().values():
        makers = getattr(entry.load("figures"), "PICTURES", {})
        drawn |= {name: svg for name, make in makers.items() if (svg := make(records))}
    return {
        PICTURES / name: svg
        for name, svg in drawn.items()
        if not (PICTURES / name).exists() or (PICTURES / name).read_text("utf-8") != svg
    }


def main(arguments: Sequence[str]) -> None:
    """Renders the documents, or checks that they are up to date."""
    options = parse(Docs, arguments, program="adaptive-nets docs", examples=EXAMPLES)
    if not (ROOT / "README.md").exists():
        raise UserError(f"{ROOT} is not a checkout; expected the repository with its README.md")
    records = collect(options.results or [PUBLISHED])
    parts = all_parts()
    changed = [
        path for path in document_paths() if update(path, records, parts=parts, check=options.check)
    ]
    for path, svg in stale_pictures().items():
        changed.append(path)
        if not options.check:
            write_text_atomically(path, svg)
    names = [
        str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path) for path in changed
    ]
    if options.check and names:
        raise UserError(f"{', '.join(names)}: stale; run adaptive-nets docs")
    if options.check:
        print("every document is up to date")
    else:
        print(f"rendered: {', '.join(names) or 'nothing had changed'}")
