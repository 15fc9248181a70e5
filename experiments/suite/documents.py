"""Parts of Markdown documents that are rendered from records.

A part is enclosed by ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. Rendering replaces the text
in between. A test fails if a part is stale, so no number in a document is typed by hand. NAME is

* a general part, such as ``runs`` or one that a benchmark adds;
* ``PAPER.PART``, where PART is in ``PARTS`` of the paper's module `tables`;
* an id of an experiment or a prefix of ids, for the paper's values beside ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.files import write_text_atomically
from adaptive_nets.runtime.progress import format_seconds
from experiments.suite import coverage, render
from experiments.suite.comparison import compare
from experiments.suite.groups import group_records
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import experiments, papers, select

Part = Callable[[Sequence[Record]], str]
"""Records -> Markdown."""

_PART = re.compile(
    r"(<!-- begin (?P<name>[\w.-]+) -->\n)(?P<body>.*?)(<!-- end (?P=name) -->)", re.S
)


def comparison_table(pattern: str, records: Sequence[Record]) -> str:
    """Formats the paper's values beside ours, without cited rows.

    Args:
        pattern: name of a paper, or the beginning of ids.
        records: records of all papers.
    """
    chosen = papers()[pattern].experiments if pattern in papers() else select(pattern)
    parts = []
    for cells in compare(list(chosen), records).values():
        parts.append(render.markdown_cells([c for c in cells if c.verdict != "cited"]))
    return "\n".join(parts)


def run_table(records: Sequence[Record]) -> str:
    """Formats devices, time per seed, versions and commit of every group of records."""
    rows = []
    for group in group_records(records):
        first = group.records[0]
        device = first.devices
        where = f"{device['count']} x {device['kind']}, {device['cpu_cores']} processor cores"
        seconds = mean_and_deviation([r.seconds for r in group.records])[0]
        rows.append(
            (
                f"`{first.experiment}`",
                group.describe(),
                where,
                format_seconds(seconds),
                f"jax {first.packages['jax']}, Python {first.packages['python']}",
                (first.code["commit"] or "none")[:10] + ("+" if first.code["dirty"] else ""),
            )
        )
    header = ("experiment", "runs", "where", "time of a seed", "versions", "commit")
    return render.markdown_table(header, rows, (3,))


GENERAL: dict[str, Part] = {
    "runs": run_table,
    "coverage": coverage.table_part,
    "coverage-of-papers": coverage.paper_part,
}


def paper_parts() -> dict[str, Part]:
    """Returns the parts of all papers, by ``PAPER.PART``."""
    parts: dict[str, Part] = {}
    for entry in papers().values():
        tables = entry.load("tables")
        for name, part in getattr(tables, "PARTS", {}).items():
            parts[f"{entry.name}.{name}"] = part
    return parts


def rendered(
    text: str, records: Sequence[Record], *, source: str, parts: Mapping[str, Part]
) -> str:
    """Returns a document with every part rendered from records.

    Args:
        text: text of the document.
        records: records to render from.
        source: name of the document, for messages.
        parts: parts by name; comparison tables of experiments are added automatically.

    Raises:
        UserError: the document names an unknown part.
    """

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name in parts:
            body = parts[name](records)
        elif any(known.startswith(name) for known in experiments()):
            body = comparison_table(name, records)
        else:
            known = [*parts, *experiments()]
            raise UserError(f"{source} has an unknown part {name!r}; {did_you_mean(name, known)}")
        return f"{match[1]}{body}{match[4]}"

    return _PART.sub(replace, text)


def names_of_parts(text: str) -> list[str]:
    """Returns the names of the parts of a document, in order."""
    return [match["name"] for match in _PART.finditer(text)]


def update(
    path: Path, records: Sequence[Record], *, parts: Mapping[str, Part], check: bool = False
) -> bool:
    """Renders a document from records; returns whether its text differs.

    Args:
        path: Markdown file.
        records: records to render from.
        parts: parts by name.
        check: whether to leave the file unchanged.
    """
    text = path.read_text(encoding="utf-8")
    new = rendered(text, records, source=path.name, parts=parts)
    if new != text and not check:
        write_text_atomically(path, new)
    return new != text
