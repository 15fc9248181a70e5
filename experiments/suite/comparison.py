"""Comparison of records with the papers' values, and verdicts by fixed rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from experiments.suite.experiment import Experiment
from experiments.suite.groups import Group, changes, group_records
from experiments.suite.paper_values import Measure, Paper, Row
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import load_paper, papers

Verdict = Literal[
    "reproduced", "differs", "measured", "reduced", "chosen", "other row", "not run", "cited"
]

VERDICT_RULES = (
    "reproduced: preset paper on the complete data, within the stated tolerance of the paper's "
    "value or better. differs: outside the tolerance, or run with a changed recipe. "
    "measured: at full size, but the paper's value is from memory or in words and not used for a "
    "verdict. reduced: smaller data or schedule. "
    "chosen: our value is a target or a setting of ours and not a result. "
    "other row: a flag that defines the row was changed, so the paper has no value. "
    "not run: no record. "
    "cited: the paper's own comparison with a method that this suite does not run."
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the paper beside ours.

    Attributes:
        row: row of the paper's table.
        measure: measure of the number.
        paper: the paper's value, a number or its words; None for a run of another row.
        group: group of our records, or None.
        ours: our mean over seeds, or None.
        deviation: standard deviation over seeds.
        verdict: verdict by `VERDICT_RULES`.
        reason: reason of a verdict other than "reproduced", or "".
    """

    row: Row
    measure: Measure
    paper: float | str | None
    group: Group | None
    ours: float | None
    deviation: float
    verdict: Verdict
    reason: str = ""

    @property
    def name(self) -> str:
        """Network and method of the row, and what a run of another row changed."""
        name = f"{self.row.network}, {self.row.method}"
        return name + self.group.row_text if self.group else name

    @property
    def difference(self) -> float | None:
        """Our value minus the paper's; None if the two cannot be compared."""
        if self.ours is None or not isinstance(self.paper, float | int):
            return None
        return None if self.verdict == "chosen" else self.ours - self.paper


def judge(measure: Measure, paper: float | str, group: Group, ours: float) -> tuple[Verdict, str]:
    """Judges one number; returns verdict and reason."""
    if group.is_reduced:
        return "reduced", ""
    if group.records[0].changed:
        return "differs", f"with {changes(group.records[0])}"
    if isinstance(paper, str):
        return "measured", ""
    distance = ours - paper
    allowed = measure.tolerance * (abs(paper) if measure.relative else 1.0)
    # The paper's values are rounded, so half a unit of the last printed digit is no difference.
    allowed += 0.5 * 10.0**-measure.digits
    if measure.better == "lower":
        good = distance <= allowed
    elif measure.better == "higher":
        good = distance >= -allowed
    else:
        good = abs(distance) <= allowed
    if good:
        return "reproduced", ""
    side = "above" if distance > 0 else "below"
    unit = "percentage points" if measure.unit == "%" else measure.unit
    return "differs", f"{abs(distance):,.{measure.digits}f} {unit} {side} the paper"


def compare_row(
    paper: Paper, row: Row, experiment: Experiment | None, records: Sequence[Record]
) -> list[Cell]:
    """Compares every number of a row with every group of records.

    Groups of another row, in which a flag that defines the row is changed, follow without the
    paper's values.
    """
    groups = group_records([r for r in records if experiment and r.experiment == experiment.id])
    same = [group for group in groups if not group.row_changes]
    cells = []
    for group in same or [None]:
        for name, value in row.values.items():
            cells.append(_cell(row, paper.measures[name], value, experiment, group))
    for group in groups[len(same) :]:
        for name in row.values:
            values = group.values(name)
            if values:
                mean, deviation = mean_and_deviation(values)
                measure = paper.measures[name]
                cells.append(Cell(row, measure, None, group, mean, deviation, "other row"))
    return cells


def _cell(
    row: Row,
    measure: Measure,
    value: float | str,
    experiment: Experiment | None,
    group: Group | None,
) -> Cell:
    """Compares one number with a group of records of its row, or with None."""
    name, nobody = measure.name, measure.unmeasured or row.unmeasured
    if group is None:
        verdict: Verdict = "not run" if experiment or row.unmeasured else "cited"
        return Cell(row, measure, value, None, None, 0.0, verdict, nobody)
    values = group.values(name)
    if not values:
        reason = group.why_not_finite(name)
        if reason:
            verdict = "reduced" if group.is_reduced else "differs"
        else:
            verdict, reason = "not run", nobody or "not measured by this run"
        return Cell(row, measure, value, group, None, 0.0, verdict, reason)
    mean, deviation = mean_and_deviation(values)
    chosen = experiment.chosen.get(name) if experiment else None
    if chosen:
        return Cell(row, measure, value, group, mean, deviation, "chosen", chosen)
    verdict, reason = judge(measure, value, group, mean)
    if row.tag == "memory" and verdict != "reduced" and not group.records[0].changed:
        verdict, reason = "measured", ""
    if verdict == "differs" and experiment and name in experiment.explanations:
        reason += f": {experiment.explanations[name]}"
    return Cell(row, measure, value, group, mean, deviation, verdict, reason)


def compare(experiments: Sequence[Experiment], records: Sequence[Record]) -> dict[str, list[Cell]]:
    """Compares experiments with their papers; includes the rows that their tables only cite.

    Args:
        experiments: experiments of any papers.
        records: records of any experiments.

    Returns:
        {"PAPER: Table 1": cells in the paper's order, ...}.
    """
    tables: dict[str, list[Cell]] = {}
    for paper_name in dict.fromkeys(e.paper for e in experiments):
        paper = load_paper(paper_name)
        by_row = {e.row: e for e in experiments if e.paper == paper_name}
        networks = {(paper.rows[row].table, paper.rows[row].network) for row in by_row}
        owned = _covered_rows(paper_name)
        for row in paper.rows.values():
            cited = row.id not in owned and (row.table, row.network) in networks
            if row.id in by_row or cited:
                cells = compare_row(paper, row, by_row.get(row.id), records)
                if cells:
                    tables.setdefault(f"{paper.name}: {row.table}", []).extend(cells)
    return tables


def _covered_rows(paper: str) -> set[str]:
    """Returns the ids of the rows of a paper that an experiment reproduces."""
    return {experiment.row for experiment in papers()[paper].experiments}


def best_verdict_text(experiment: Experiment, records: Sequence[Record]) -> str:
    """Formats the best verdict over groups of the row in a few words: 'reproduced 2/3'."""
    paper = load_paper(experiment.paper)
    cells = [
        cell
        for cell in compare_row(paper, paper.rows[experiment.row], experiment, records)
        if cell.verdict not in ("chosen", "other row")
    ]
    full = [c for c in cells if c.verdict in ("reproduced", "differs", "measured")]
    if full:
        best = [c for c in cells if c.group is full[0].group]
        if all(cell.verdict in ("measured", "not run") for cell in best):
            return "measured"
        good = sum(c.verdict == "reproduced" for c in best)
        return f"reproduced {good}/{len(best)}"
    if not cells:
        # The paper has no number of this row to compare with.
        groups = group_records([r for r in records if r.experiment == experiment.id])
        same = [group for group in groups if not group.row_changes]
        whole = any(not group.is_reduced for group in same)
        return "measured" if whole else "reduced" if same else "not run"
    return "reduced" if any(c.verdict == "reduced" for c in cells) else "not run"
