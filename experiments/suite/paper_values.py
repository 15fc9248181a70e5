"""Numbers that the papers report, read from each paper's `paper_values.toml`."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from adaptive_nets.runtime.errors import UserError

Side = Literal["lower", "higher", "near"]
Tag = Literal["verified", "digitised", "derived", "memory"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """Format and tolerance of a measure.

    Attributes:
        name: key in records and in rows.
        title: title in tables.
        unit: unit of the values.
        digits: number of decimals in tables.
        better: "lower" or "higher" if one side is better, "near" if the paper claims the value
            itself.
        tolerance: largest distance on the worse side (either side for "near") that counts as
            reproduced.
        relative: whether the tolerance is a fraction of the paper's value.
        unmeasured: reason why no experiment of the paper measures it; "" if one does.
    """

    name: str
    title: str
    unit: str
    digits: int
    better: Side
    tolerance: float
    relative: bool = False
    unmeasured: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table, or one line of a figure.

    Attributes:
        id: table and row, unique within the paper.
        table: name of the table or figure in the paper.
        network: name of the network.
        method: name of the method.
        values: measure -> the paper's number, or its words where it states no number.
        tag: origin of the number: "verified" (read in the source), "digitised" (from a figure),
            "derived" (computed by a verified rule) or "memory".
        source: page, table or figure that it was read from.
        setup: setup that the paper states.
        unmeasured: reason why no experiment reproduces this row of the paper's own method; "" for
            rows with an experiment and for rows that the paper cites from others.
    """

    id: str
    table: str
    network: str
    method: str
    values: dict[str, float | str]
    tag: Tag
    source: str
    setup: str = ""
    unmeasured: str = ""

    def number(self, measure: str) -> float | None:
        """Returns the paper's number; None if it states none or only words."""
        value = self.values.get(measure)
        return None if isinstance(value, str) else value


@dataclasses.dataclass(frozen=True)
class Paper:
    """Paper and its numbers.

    Attributes:
        name: name of the folder.
        title: title of the paper.
        citation: authors, venue, identifier.
        year: year of publication; papers are shown in this order.
        measures: measures by name.
        rows: rows by id, in the paper's order.
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
        name: name of the paper.
        path: path of its `paper_values.toml`.

    Raises:
        UserError: the file has another form; the message names the entry.
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
