"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.papers.pact.configs import EXPERIMENTS
from experiments.report import axes as axes_lib
from experiments.report.charts import LAYERS, LIGHT, Figure, Missing, panel
from experiments.report.settings import curve, curve_data, rounded
from experiments.shared.adaptive_depth.budget_tables import budget_figures
from experiments.shared.adaptive_depth.figures import series_panel
from experiments.shared.adaptive_depth.paper_figures import (
    ADAPTIVE_FIGURES,
    experiment_figures,
    groups_without_smoke,
)
from experiments.shared.adaptive_depth.trade_offs import PACT, trade_offs
from experiments.suite.groups import Group
from experiments.suite.records import Record, mean_and_deviation

_ESTIMATORS = {"relaxation": "sparse", "reinforce": "dense"}
# Second part of the ids -> end of the heading, and what the networks are.
_COMPARISONS = {
    "figure": ("", "The network has two units per block and half the channels"),
    "trained": (", from trained weights", "The network starts from a trained plain one"),
}
_MODES = ("relaxed", "discrete", "thresholded")


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: Records of any experiments.

    Returns:
        Figures, and notes on missing ones, in the order of the page.
    """
    drawn: list[Figure | Missing] = []
    for experiment in EXPERIMENTS:
        if ".table1." in experiment.id:
            drawn += experiment_figures(experiment, records, (modes, *ADAPTIVE_FIGURES))
    drawn += curves(records)
    drawn += budget_figures(records, prefix="pact.budget.", method=PACT)
    drawn += (estimators(records, table) for table in _COMPARISONS)
    drawn.append(discontinuity(records))
    drawn.append(parity(records))
    return drawn


def curves(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws accuracy over FLOPs for several τ, beside SACT and plain networks."""
    section = "Accuracy against cost for several values of tau"
    found = trade_offs(records, several_of=PACT)
    if found:
        return [dataclasses.replace(figure, section=section) for figure in found]
    commands = tuple(
        f"adaptive-nets run {experiment.id} --preset quick"
        for experiment in EXPERIMENTS
        if ".curve." in experiment.id
    )
    return [Missing("The curve is missing: fewer than two values of tau", commands, section)]


def discontinuity(records: Sequence[Record]) -> Figure | Missing:
    """Draws ACT's ponder cost and PACT's expected number of units over the first score."""
    section = "Discontinuity of the ponder cost"
    name = "pact.discontinuity.ponder-cost"
    found = [r for r in records if r.experiment == name and not r.changed]
    if not found:
        command = f"adaptive-nets run {name} --preset paper"
        return Missing("No figure: there is no record", (command,), section)
    record = max(found, key=lambda r: len(r.arrays()["first_score"]))
    arrays = record.arrays()
    first, cost, expected = (arrays[k] for k in ("first_score", "ponder_cost", "expected"))
    ends = np.flatnonzero(np.diff(arrays["units"])) + 1
    with panel("Cost over the first score, units", margins=(46, 14, 50, 42)) as drawn:
        # One line for each N, so that jumps stay open.
        for i, part in enumerate(np.split(np.arange(len(first)), ends)):
            drawn.axes.plot(first[part], cost[part], color=LIGHT["dense"],
                            label=None if i else "ACT: ponder cost")  # fmt: skip
        drawn.axes.plot(first, expected, color=LIGHT["sparse"], label="PACT: expected units")
        drawn.axes.set_ylim(0, None)
        drawn.axes.set_xlabel("score of the first unit")
        axes_lib.legend_above(drawn.axes)
    curve_config = record.config["curve"]
    others = ", ".join(f"{score:.3g}" for score in curve_config["others"])
    largest = record.metric("largest_jump")
    assert largest is not None
    caption = (
        f"One block of {len(curve_config['others']) + 2} units; the scores after the first are "
        f"{others}. ACT's cost N + R jumps by up to {largest.value:.2f} units where the number of "
        "units changes. The expected number of units, of the same numbers read as probabilities of "
        "stopping, is continuous."
    )
    chosen = np.linspace(0, len(first) - 1, min(len(first), 101)).astype(int)
    rows = [[rounded(float(a[i])) for a in (first, cost, expected)] for i in chosen]
    data = {"columns": ["first score", "ponder cost", "expected units"], "rows": rows}
    return Figure(section, caption, (drawn.svg,), data=data, section=section,
                  runs=f"preset {record.preset}")  # fmt: skip


def modes(group: Group) -> Figure | None:
    """Draws error and FLOPs of the same parameters in three modes over training."""
    panels, data = [], []
    for title, key, scale in (
        ("Error on 1,000 test images, %", "error", 100.0),
        ("MFLOPs per image", "flops", 1e-6),
    ):
        found = [
            (mode, LIGHT[LAYERS[i]], c)
            for i, mode in enumerate(_MODES)
            if (c := curve(group, f"modes/{key}.{mode}", scale=scale)) is not None
        ]
        if not found:
            return None
        panels.append(series_panel(title, found))
        data += [(f"{title}: {name}", values) for name, _, values in found]
    ends = ", ".join(
        f"{mode} {mean_and_deviation(values)[0]:.2f} %"
        for mode in _MODES
        if (values := group.values(f"accuracy.{mode}"))
    )
    caption = (
        "One set of parameters, trained relaxed and run in three modes. Accuracy on the whole test "
        f"set after training: {ends}. The relaxed mode computes every unit."
    )
    return Figure("Three modes of one network", caption, tuple(panels), data=curve_data(data))


def estimators(records: Sequence[Record], table: str) -> Figure | Missing:
    """Draws loss and accuracy of both estimators over the number of latent variables.

    Args:
        records: records of any experiments.
        table: second part of the ids, one of `_COMPARISONS`.
    """
    heading, remark = _COMPARISONS[table]
    section = f"Relaxation against REINFORCE{heading}"
    points: dict[str, list[tuple[float, Group]]] = {name: [] for name in _ESTIMATORS}
    for experiment in EXPERIMENTS:
        if f".{table}." not in experiment.id:
            continue
        name = experiment.row.partition(".")[2].partition("-")[0]
        groups = groups_without_smoke([r for r in records if r.experiment == experiment.id])
        groups = [group for group in groups if not group.row_changes]
        if groups and groups[0].preset != "smoke":
            points[name].append((groups[0].values("latents")[0], groups[0]))
    if not all(points.values()):
        commands = tuple(
            f"adaptive-nets run pact.{table}.{name}-{count} --preset quick"
            for count in (3, 48, 1344)
            for name in _ESTIMATORS
        )
        return Missing("The comparison is missing: an estimator has no record", commands, section)
    panels, rows = [], []
    for title, measure in (
        ("Test cross-entropy, sampled depth, nats", "nll.discrete"),
        ("Test accuracy, thresholded, %", "test_accuracy"),
    ):
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            for name, colour in _ESTIMATORS.items():
                line = sorted(
                    (n, mean_and_deviation(g.values(measure))[0]) for n, g in points[name]
                )
                drawn.axes.plot(
                    *zip(*line, strict=True), color=LIGHT[colour], marker="o", label=name
                )
                rows += [[title, name, int(n), rounded(v)] for n, v in line]
            axes_lib.log_axis(drawn.axes, 3, 1344, axis="x")
            drawn.axes.set_xlabel("latent variables per image")
            axes_lib.legend_above(drawn.axes)
        panels.append(drawn.svg)
    first = points["relaxation"][0][1]
    caption = (
        f"Positions of a group share one decision, so more groups mean more latent variables. "
        f"{remark}; both estimators train it for the same number of steps."
    )
    data = {"columns": ["measure", "estimator", "latent variables", "value"], "rows": rows}
    return Figure(section, caption, tuple(panels), data=data, section=section,
                  runs=first.describe())  # fmt: skip


def parity(records: Sequence[Record]) -> Figure | Missing:
    """Draws the updates of a recurrent network's state over the difficulty of a time step."""
    section = "Recurrent networks"
    found: list[tuple[str, str, Group]] = []
    for rule, colour in (("act", "dense"), ("pact", "sparse")):
        name = f"pact.recurrent.parity-{rule}"
        groups = groups_without_smoke([r for r in records if r.experiment == name])
        groups = [group for group in groups if not group.row_changes]
        if groups and groups[0].preset != "smoke":
            found.append((rule.upper(), LIGHT[colour], groups[0]))
    if not found:
        commands = tuple(
            f"adaptive-nets run pact.recurrent.parity-{rule} --preset quick"
            for rule in ("act", "pact")
        )
        return Missing("No figure: no run has a record", commands, section)
    rows, panels, ends = [], [], []
    for title, measure in (("Updates", "units"), ("Ponder cost", "ponder")):
        with panel(f"{title} per time step", margins=(46, 14, 50, 42)) as drawn:
            for name, colour, group in found:
                numbers, values = [], []
                for k in range(1, 100):
                    measured = group.values(f"{measure}.numbers{k}")
                    if not measured:
                        break
                    numbers.append(k)
                    values.append(mean_and_deviation(measured)[0])
                drawn.axes.plot(numbers, values, color=colour, marker="o", label=name)
                rows += [[title, name, k, rounded(v)] for k, v in zip(numbers, values, strict=True)]
            drawn.axes.set_xticks(np.arange(1, max(row[2] for row in rows) + 1))
            drawn.axes.set_xlabel("numbers in the time step")
            axes_lib.legend_above(drawn.axes)
        panels.append(drawn.svg)
    for name, _, group in found:
        correlation = group.values("difficulty_correlation")
        accuracy = group.values("test_accuracy")
        if correlation and accuracy:
            ends.append(
                f"{name}: correlation {mean_and_deviation(correlation)[0]:.2f}, "
                f"{mean_and_deviation(accuracy)[0]:.1f} % of sequences with every answer correct"
            )
    caption = (
        "Running parity: updates of the state over the difficulty of a time step, the count of "
        f"numbers in it. {'; '.join(ends)}."
    )
    data = {"columns": ["measure", "rule", "numbers", "value"], "rows": rows}
    runs = "; ".join(f"{name}: {group.describe()}" for name, _, group in found)
    return Figure("Ponder time and difficulty", caption, tuple(panels), data=data,
                  section=section, runs=runs)  # fmt: skip
