"""What the papers report, as written down in each paper's `paper_values.toml`."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Literal

Side = Literal["lower", "higher", "near"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """How a measure is written and judged.

    Attributes:
        name: key in records and in rows.
        title: for people.
        unit: of the values.
        digits: decimals when rendered.
        better: "lower" or "higher" where one side is better, "near" where the value itself is the
            claim.
        tolerance: largest distance on the worse side (either side for "near") that counts as
            reproduced.
        relative: the tolerance is a fraction of the paper's value.
    """

    name: str
    title: str
    unit: str
    digits: int
    better: Side
    tolerance: float
    relative: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table, or one line of a figure.

    Attributes:
        id: table and row, unique within the paper.
        table: as the paper calls it.
        network: what is measured.
        method: how.
        values: measure -> the paper's number.
        tag: "verified", "digitised" or "memory": how the number reached us.
        source: where it was read.
        setup: what the paper says of how it was obtained.
    """

    id: str
    table: str
    network: str
    method: str
    values: dict[str, float]
    tag: str
    source: str
    setup: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper and its numbers.

    Attributes:
        name: of the folder.
        title: of the paper.
        citation: authors, venue, identifier.
        measures: by name.
        rows: by id, in the paper's order.
    """

    name: str
    title: str
    citation: str
    measures: dict[str, Measure]
    rows: dict[str, Row]


@functools.cache
def load_paper(name: str) -> Paper:
    """Reads the values of the paper in folder `name`."""
    path = Path(__file__).parent / name / "paper_values.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    measures = {key: Measure(name=key, **value) for key, value in content["measures"].items()}
    rows = {row["id"]: Row(**row) for row in content["rows"]}
    for row in rows.values():
        unknown = set(row.values) - set(measures)
        if unknown:
            raise ValueError(
                f"{path}: row {row.id!r} has values without a measure: {sorted(unknown)}"
            )
    return Paper(name, content["title"], content["citation"], measures, rows)
