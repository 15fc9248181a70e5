"""Comparison of records with the papers' values, and verdicts by fixed rules."""

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
    "reproduced: preset paper on the complete data, within the stated tolerance of the paper's "
    "value or better. differs: outside the tolerance, or run with changed flags. "
    "measured: at full size, but the paper's value is from memory and not used for a verdict. "
    "reduced: smaller data or schedule. not run: no record. "
    "cited: the paper's own comparison with a method that this suite does not run."
)


@dataclasses.dataclass(frozen=True)
class Group:
    """Records of one experiment that differ in the seed only."""

    records: tuple[Record, ...]

    @property
    def preset(self) -> str:
        """Preset shared by the whole group."""
        return self.records[0].preset

    @property
    def is_reduced(self) -> bool:
        """True if data set or schedule are smaller than the paper's."""
        first = self.records[0]
        return first.preset != "paper" or not first.dataset["complete"] or _is_shortened(first)

    def values(self, measure: str) -> list[float]:
        """Returns the finite values of a measure, one per seed."""
        metrics = [record.metric(measure) for record in self.records]
        return [m.value for m in metrics if m is not None and m.value is not None]

    def why_not_finite(self, measure: str) -> str:
        """Returns the note on a measure without a finite value; "" if no record has the measure."""
        metrics = [record.metric(measure) for record in self.records]
        return next((m.note or "not finite" for m in metrics if m is not None), "")

    def describe(self) -> str:
        """Formats preset, seeds, data and steps in one line."""
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
    """Returns whether flags made the training shorter than the paper's."""
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
    """One number of the paper beside ours.

    Attributes:
        row: row of the paper's table.
        measure: measure of the number.
        paper: the paper's value.
        group: group of our records, or None.
        ours: our mean over seeds, or None.
        deviation: standard deviation over seeds.
        verdict: verdict by `VERDICT_RULES`.
        reason: reason of a verdict other than "reproduced", or "".
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
        """Our value minus the paper's; None without ours."""
        return None if self.ours is None else self.ours - self.paper


def group_records(records: Sequence[Record]) -> list[Group]:
    """Groups records by experiment, preset, configuration and data; the preset paper first."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    order = {"paper": 0, "quick": 1, "smoke": 2}
    made = [Group(tuple(sorted(g, key=lambda r: r.seed))) for g in groups.values()]
    return sorted(made, key=lambda g: (order.get(g.preset, 3), bool(g.records[0].changed)))


def judge(measure: Measure, paper: float, group: Group, ours: float) -> tuple[Verdict, str]:
    """Judges one number; returns verdict and reason."""
    if group.is_reduced:
        return "reduced", ""
    if group.records[0].changed:
        return "differs", f"with {changes(group.records[0])}"
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
    """Compares every number of a row with every group of records."""
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
    """Formats the best verdict over groups in a few words: 'reproduced 2/3'."""
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
        # The paper prints no number of this row; our values appear in figures only.
        groups = group_records([r for r in records if r.experiment == experiment.id])
        whole = any(not group.is_reduced for group in groups)
        return "measured" if whole else "reduced" if groups else "not run"
    return "reduced" if any(c.verdict == "reduced" for c in cells) else "not run"
