"""HTML tables of the paper's values beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.report.markup import Markup, code, element, folded, items, join, scrolled
from experiments.suite.comparison import Cell
from experiments.suite.experiment import Experiment
from experiments.suite.paper_values import Measure
from experiments.suite.render import blocks, difference_text, measure_text, ours_text, paper_text

# Signs and colours repeat what the words say.
SIGNS = {
    "reproduced": "✓", "differs": "≠", "measured": "●", "reduced": "◐", "chosen": "=",
    "other row": "△", "not run": "○", "cited": "“",
}  # fmt: skip
_COLUMNS = ("measure", "paper", "ours", "difference", "status")


def status(verdict: str, text: str | None = None) -> Markup:
    """Returns a verdict as sign and word; `text` replaces the word."""
    sign = element("span", SIGNS[verdict], aria_hidden="true")
    name = verdict.replace(" ", "-")
    return element("span", sign, " ", text or verdict, class_=f"status {name}")


def infinite_note(cell: Cell) -> str:
    """Returns the note of a measure that is infinite in our runs; empty for all others."""
    if cell.group is None:
        return ""
    metrics = [record.metric(cell.measure.name) for record in cell.group.records]
    notes = [m.note for m in metrics if m and m.value is None and m.note.startswith("infinite")]
    return notes[0] if notes else ""


def comparison_table(
    title: str,
    cells: Sequence[Cell],
    experiments: Mapping[str, Experiment],
    anchors: Mapping[int, str],
) -> Markup:
    """Returns one table of the paper with its notes.

    Args:
        title: Caption of the table.
        cells: Cells in the paper's order.
        experiments: Experiments by the id of the row that they reproduce.
        anchors: HTML ids of the provenance of groups, by `id(group)`.
    """
    sources = list(dict.fromkeys((c.row.tag, c.row.source) for c in cells))
    head = element(
        "thead",
        element(
            "tr",
            *(element("th", name, scope="col", class_=_align(name)) for name in _COLUMNS),
        ),
    )
    bodies, absent, seen = [], [], set()
    for block in blocks(cells):
        row = block[0].row
        if block[0].verdict == "cited":
            bodies.append(_cited(block, sources))
        else:
            experiment = experiments.get(row.id)
            # The paper's setup is shown once per row, not for every group of runs.
            new = row.id not in seen
            body = _block(block, experiment, anchors, sources, show_setup=new)
            (bodies if block[0].group else absent).append(body)
        seen.add(row.id)
    parts = [element("h4", title)]
    if bodies:
        table = element("table", head, *bodies, class_="comparison", aria_label=title)
        parts.append(scrolled(table, label=title))
    if absent:
        # Rows without a record are shown on demand: they hold no result.
        label = f"{title}: rows without a record"
        table = element("table", head, *absent, class_="comparison", aria_label=label)
        count = f"{len(absent)} row{'' if len(absent) == 1 else 's'}"
        parts.append(folded(f"Without a record: {count}", scrolled(table, label=label),
                            class_="absent"))  # fmt: skip
    return join((*parts, _sources(sources), _deviations(cells, experiments)))


def _align(column: str) -> str | None:
    return "number" if column in ("paper", "ours", "difference") else None


def _block(
    block: Sequence[Cell],
    experiment: Experiment | None,
    anchors: Mapping[int, str],
    sources: Sequence[tuple[str, str]],
    *,
    show_setup: bool,
) -> Markup:
    first = block[0]
    about: list[Any] = []
    if first.group is not None:
        anchor = anchors.get(id(first.group))
        link = element(
            "a", f"configuration {first.group.records[0].config_hash}", href=f"#{anchor}"
        )
        about.append(join((first.group.describe(), "; ", link)))
    elif experiment is not None:
        about.append(
            join(("no record; ", code(f"adaptive-nets run {experiment.id} --preset quick")))
        )
    if first.row.setup and show_setup:
        about.append(f"paper: {first.row.setup}")
    head = element(
        "tr",
        element(
            "th",
            element("span", first.name, class_="row-name"),
            *(element("span", line, class_="about") for line in about),
            colspan=len(_COLUMNS),
            scope="rowgroup",
        ),
        class_="block",
    )
    return element("tbody", head, *(_line(cell, sources) for cell in block))


def _line(cell: Cell, sources: Sequence[tuple[str, str]]) -> Markup:
    note = infinite_note(cell) if cell.ours is None else ""
    reason = note or cell.reason
    return element(
        "tr",
        element("th", measure_text(cell), scope="row"),
        _number("paper", _paper_value(cell, sources), class_="number paper"),
        _number("ours", "∞" if note else ours_text(cell), class_="number ours"),
        _number("difference", difference_text(cell).replace("-", "−"), class_="number"),
        element(
            "td",
            status(cell.verdict),
            element("span", reason, class_="reason") if reason else None,
        ),
        data_status=cell.verdict,
    )


def _number(column: str, text: Any, *, class_: str) -> Markup:
    # Narrow pages have no head of the table; they show the name of the column with the number.
    return element("td", text, class_=class_, data_label=column if text else None)


def _cited(block: Sequence[Cell], sources: Sequence[tuple[str, str]]) -> Markup:
    """Returns a row of the literature in one line, since it has no values of ours."""
    values = join((_pair(cell, sources) for cell in block), ", ")
    return element(
        "tbody",
        element(
            "tr",
            element(
                "td", element("span", f"{block[0].name}:", class_="row-name"), " ",
                values, colspan=len(_COLUMNS) - 1,
            ),
            element("td", status("cited")),
            data_status="cited",
        ),
        class_="cited",
    )  # fmt: skip


def _pair(cell: Cell, sources: Sequence[tuple[str, str]]) -> Markup:
    value = _paper_value(cell, sources)
    return element("span", f"{cell.measure.title} ", value, f" {cell.measure.unit}", class_="pair")


def _paper_value(cell: Cell, sources: Sequence[tuple[str, str]]) -> Markup:
    """Returns the paper's number with its source as a tooltip, and a letter if sources differ."""
    if cell.paper is None:
        return Markup("")
    source = (cell.row.tag, cell.row.source)
    letter = element("sup", chr(ord("a") + sources.index(source))) if len(sources) > 1 else None
    value, bracket, mark = paper_text(cell).partition(" (")
    text = join((value, element("span", bracket, mark, class_="mark") if mark else None))
    return join((element("span", text, title=": ".join(source)), letter))


def _sources(sources: Sequence[tuple[str, str]]) -> Markup:
    parts = []
    for i, (tag, source) in enumerate(sources):
        letter = element("sup", chr(ord("a") + i), " ") if len(sources) > 1 else None
        origin = {
            "verified": "read in",
            "digitised": "measured from a figure in",
            "derived": "computed by",
            "memory": "recalled, not verified:",
        }.get(tag, "from")
        parts.append(join((letter, f"{tag}: {origin} {source}")))
    return element("p", "The paper’s numbers: ", join(parts, "; "), ".", class_="note")


def _deviations(cells: Sequence[Cell], experiments: Mapping[str, Experiment]) -> Markup:
    """Lists deviations from the paper, every sentence once with the rows that it concerns."""
    rows = {c.row.id: c.row for c in cells if c.row.id in experiments}
    said: dict[str, list[str]] = {}
    for name, row in rows.items():
        for sentence in experiments[name].deviations:
            said.setdefault(sentence, []).append(f"{row.network}, {row.method}")
    if not said:
        return Markup("")
    sentences = (
        join((f"{sentence} ", element("span", f"({_few(names, len(rows))})", class_="about")))
        for sentence, names in said.items()
    )
    return join((element("h5", "Deviations from the paper"), items(sentences, class_="deviations")))


def _few(names: Sequence[str], total: int, most: int = 3) -> str:
    """Lists the rows that a sentence concerns; of many it names the first and their number."""
    if len(names) <= most:
        return "; ".join(names)
    if len(names) == total:
        return "all rows"
    return f"{names[0]} and {len(names) - 1} more rows"


def tolerances(measures: Iterable[Measure]) -> Markup:
    """Returns the tolerances of the verdicts, by measure."""
    return folded("Tolerances", items(_tolerance(m) for m in measures))


def _tolerance(measure: Measure) -> str:
    if measure.relative:
        amount = f"{100 * measure.tolerance:g} % of the paper’s value"
    else:
        unit = "percentage points" if measure.unit == "%" else measure.unit
        amount = f"{measure.tolerance:g} {unit}"
    side = {
        "lower": f"at most {amount} above it, or anything below it",
        "higher": f"at most {amount} below it, or anything above it",
        "near": f"within {amount} of it on either side",
    }[measure.better]
    return f"{measure.title}: {side}"
