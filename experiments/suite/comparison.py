"""The paper's value beside ours, with a verdict that can be defended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from adaptive_nets.training.duration import Timing
from experiments.suite import config as config_lib
from experiments.suite.experiment import Experiment
from experiments.suite.paper_values import Measure, Paper, Row
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import find_experiment, load_paper, papers

Verdict = Literal["reproduced", "differs", "measured", "reduced", "not run", "cited"]

VERDICT_RULES = (
    "reproduced: preset paper on the complete data, and no further from the paper than the stated "
    "tolerance, or on its better side. differs: outside it, or run with changed flags. "
    "measured: at full size, beside a number from memory, against which nothing is judged. "
    "reduced: smaller data or schedule. not run: no record. "
    "cited: the paper's own comparison, not ours to run."
)


@dataclasses.dataclass(frozen=True)
class Group:
    """Records of one experiment that differ in their seed alone."""

    records: tuple[Record, ...]

    @property
    def preset(self) -> str:
        """Of all of them."""
        return self.records[0].preset

    @property
    def is_reduced(self) -> bool:
        """Whether data or schedule are smaller than the paper's."""
        first = self.records[0]
        return first.preset != "paper" or not first.dataset["complete"] or _is_shortened(first)

    def values(self, measure: str) -> list[float]:
        """The measure of every seed that has a finite one."""
        metrics = [record.metric(measure) for record in self.records]
        return [m.value for m in metrics if m is not None and m.value is not None]

    def why_not_finite(self, measure: str) -> str:
        """What the records note of a measure without a finite value; "" if none has it at all."""
        metrics = [record.metric(measure) for record in self.records]
        return next((m.note or "not finite" for m in metrics if m is not None), "")

    def describe(self) -> str:
        """One line: size of the experiment, seeds, data."""
        first = self.records[0]
        seeds = f"{len(self.records)} seed{'s' if len(self.records) > 1 else ''}"
        data = f"{first.dataset['train']:,} images" if first.dataset["train"] else "no data"
        changed = f", with {changes(first)}" if first.changed else ""
        return f"preset {first.preset}, {seeds}, {data}, {first.steps:,} steps{changed}"


def changes(record: Record) -> str:
    """Returns the flags that differ from the preset, with their values: "halting.tau=0.005"."""
    values = config_lib.flat(record.config)
    return ", ".join(f"{name}={_value_text(values.get(name))}" for name in record.changed)


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_value_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_shortened(record: Record) -> bool:
    """Whether flags made the training shorter than the paper's."""
    if "schedule.length" not in record.changed or not record.dataset["train"]:
        return False
    config = find_experiment(record.experiment).presets["paper"].config
    schedule, data = (config_lib.group(config, name) for name in ("schedule", "data"))
    if schedule is None or data is None:
        return False
    whole = Timing.of(
        schedule.length,
        batch_size=data.batch_size,
        examples=record.dataset["train"],
    )
    epochs = record.steps * record.config["data"]["batch_size"] / record.dataset["train"]
    return epochs < whole.total_steps / whole.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the paper and what we have against it.

    Attributes:
        row: of the paper's table.
        measure: which number of the row.
        paper: the paper's value.
        group: our records, or None.
        ours: mean over seeds, or None.
        deviation: standard deviation over seeds.
        verdict: see `VERDICT_RULES`.
        reason: why it is not reproduced.
    """

    row: Row
    measure: Measure
    paper: float
    group: Group | None
    ours: float | None
    deviation: float
    verdict: Verdict
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None else self.ours - self.paper


def group_records(records: Sequence[Record]) -> list[Group]:
    """Groups by experiment, preset, configuration and data; the preset paper first."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    order = {"paper": 0, "quick": 1, "smoke": 2}
    made = [Group(tuple(sorted(g, key=lambda r: r.seed))) for g in groups.values()]
    return sorted(made, key=lambda g: (order.get(g.preset, 3), bool(g.records[0].changed)))


def judge(measure: Measure, paper: float, group: Group, ours: float) -> tuple[Verdict, str]:
    """The verdict on one number, and its reason."""
    if group.is_reduced:
        return "reduced", ""
    if group.records[0].changed:
        return "differs", f"with {changes(group.records[0])}"
    distance = ours - paper
    allowed = measure.tolerance * (abs(paper) if measure.relative else 1.0)
    # Printed values are rounded; half of the last printed digit is nobody's difference.
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
    """Every number of one row against every group of records."""
    cells = []
    groups = group_records([r for r in records if experiment and r.experiment == experiment.id])
    for group in groups or [None]:
        for name, value in row.values.items():
            measure = paper.measures[name]
            if group is None:
                verdict: Verdict = "not run" if experiment else "cited"
                cells.append(Cell(row, measure, value, None, None, 0.0, verdict))
                continue
            values = group.values(name)
            if not values:
                reason = group.why_not_finite(name)
                if not reason:
                    verdict, reason = "not run", "not measured by this run"
                else:
                    verdict = "reduced" if group.is_reduced else "differs"
                cells.append(Cell(row, measure, value, group, None, 0.0, verdict, reason))
                continue
            mean, deviation = mean_and_deviation(values)
            verdict, reason = judge(measure, value, group, mean)
            judged = verdict != "reduced" and not group.records[0].changed
            if row.tag == "memory" and judged:
                verdict, reason = "measured", ""
            if verdict == "differs" and experiment and name in experiment.explanations:
                reason += f": {experiment.explanations[name]}"
            cells.append(Cell(row, measure, value, group, mean, deviation, verdict, reason))
    return cells


def compare(experiments: Sequence[Experiment], records: Sequence[Record]) -> dict[str, list[Cell]]:
    """Cells of the given experiments and of the rows that their tables cite beside them, by table.

    Args:
        experiments: of any papers.
        records: everything that was collected.

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
    """Rows of a paper that some experiment of ours runs."""
    return {experiment.row for experiment in papers()[paper].experiments}


def best_verdict_text(experiment: Experiment, records: Sequence[Record]) -> str:
    """One word or two for a list: the best verdict over groups, with how many numbers have it."""
    paper = load_paper(experiment.paper)
    cells = compare_row(paper, paper.rows[experiment.row], experiment, records)
    full = [c for c in cells if c.verdict in ("reproduced", "differs", "measured")]
    if full:
        best = [c for c in cells if c.group is full[0].group]
        if all(cell.verdict in ("measured", "not run") for cell in best):
            return "measured"
        good = sum(c.verdict == "reproduced" for c in best)
        return f"reproduced {good}/{len(best)}"
    if not cells:
        # The paper prints no number of this row; ours stand in figures.
        groups = group_records([r for r in records if r.experiment == experiment.id])
        whole = any(not group.is_reduced for group in groups)
        return "measured" if whole else "reduced" if groups else "not run"
    return "reduced" if any(c.verdict == "reduced" for c in cells) else "not run"
