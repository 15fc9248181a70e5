"""Numbers that the papers report, as written down in each paper's `paper_values.toml`."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from adaptive_nets.runtime.errors import UserError

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
        name: Name of the folder.
        title: Title of the paper.
        citation: Authors, venue, identifier.
        year: Year of publication; papers are shown in this order.
        measures: Measures by name.
        rows: Rows by id, in the paper's order.
    """

    name: str
    title: str
    citation: str
    year: int
    measures: dict[str, Measure]
    rows: dict[str, Row]


def read_paper(name: str, path: Path) -> Paper:
    """Reads the values of a paper.

    Args:
        name: Name of the paper.
        path: Its `paper_values.toml`.

    Raises:
        UserError: The file is not of this form; the message names the entry.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    try:
        measures = {
            key: msgspec.convert({"name": key, **value}, Measure)
            for key, value in _entry(content, "measures", dict).items()
        }
        rows = [msgspec.convert(row, Row) for row in _entry(content, "rows", list)]
        paper = Paper(
            name,
            _entry(content, "title", str),
            _entry(content, "citation", str),
            content.get("year", 9999),
            measures,
            {row.id: row for row in rows},
        )
    except (msgspec.ValidationError, TypeError) as error:
        raise UserError(f"{path}: {error}") from error
    for row in rows:
        unknown = set(row.values) - set(measures)
        if unknown:
            raise UserError(
                f"{path}: row {row.id!r} has values without a measure: {', '.join(sorted(unknown))}"
            )
    return paper


def _entry(content: dict[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}; expected a {kind.__name__}")
    return value
