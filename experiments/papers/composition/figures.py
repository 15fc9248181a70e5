"""Figure of the comparison: error over the FLOPs of all views."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.papers.composition.configs import EXPERIMENTS
from experiments.papers.composition.tables import NETWORKS, composition_groups
from experiments.report.axes import log_axis
from experiments.report.charts import LIGHT, Figure, Missing, panel
from experiments.suite.groups import Group
from experiments.suite.records import Record

_COLOURS = {"plain": "dense", "sparse": "sparse", "adaptive": "layer2", "both": "layer4"}
_MARKERS = {"": "o", "crops_": "^", "policy_": "s"}


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: records of any experiments.
    """
    groups = composition_groups(records)
    if not groups:
        (experiment,) = EXPERIMENTS
        command = f"adaptive-nets run {experiment.id} --start.weights FILE"
        return [Missing("There is no record", (command,), experiment.title)]
    return [
        Figure(
            title="Methods alone and together",
            caption="Test error over the FLOPs of all views, of kept weights only: circles are the "
            "image itself, triangles averages over crops and flips, squares over a policy's views.",
            svg=(_drawn(group),),
            data={
                "columns": ["network", "views", "FLOPs, % of plain", "error, %"],
                "rows": [list(row) for row in _points(group)],
            },
            section="Methods alone and together",
            runs=group.describe(),
        )
        for group in groups
    ]


def _points(group: Group) -> list[tuple[str, str, float, float]]:
    """Returns (network, kind of views, cost in % of one plain pass, error in %)."""
    record = group.records[0]
    views = record.config["views"]["counts"][-1]
    found = []
    for label in NETWORKS:
        for kind in _MARKERS:
            error, share = (
                record.metric(name)
                for name in (f"{kind}error.{label}", f"kept_flops_share.{label}")
            )
            if error is None or share is None or error.value is None or share.value is None:
                continue
            found.append((label, kind, share.value * (views if kind else 1), error.value))
    return found


def _drawn(group: Group) -> str:
    with panel("test error, %", size=(480, 300)) as drawn:
        axes = drawn.axes
        for label, kind, cost, error in _points(group):
            axes.plot(
                [cost], [error], _MARKERS[kind], color=LIGHT[_COLOURS[label]],
                label=NETWORKS[label] if not kind else None,
            )  # fmt: skip
        costs = [cost for _, _, cost, _ in _points(group)]
        log_axis(axes, min(costs), max(costs), axis="x")
        axes.set_xlabel("FLOPs of kept weights and all views, % of one plain pass")
        axes.legend(loc="upper right")
    return drawn.svg
