"""Figures of the paper's experiments: policies over the number of views, and the search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.papers.gps.tables import groups_of, policy_names, policy_title
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, Missing, panel, with_background
from experiments.report.settings import rounded
from experiments.shared.ensembling.scores import CLL
from experiments.suite.groups import Group
from experiments.suite.records import Record

_SECTION = "Greedy policy search"
_COLOURS = {
    "plain": "muted", "crops": "dense", "one_magnitude": "layer3", "greedy": "sparse",
    "other_plain": "muted", "other_crops": "dense", "other_greedy": "sparse",
}  # fmt: skip
_GIVEN = ("layer1", "layer2", "layer4", "layer5")


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws policies over the number of views, one figure for every run."""
    groups = groups_of(records)
    if not groups:
        command = "adaptive-nets run gps.cifar10.resnet32 --preset quick --weights FILE"
        return [Missing("No figure: no run has a record", (command,), _SECTION)]
    return [_policies(group, folded=i > 0) for i, group in enumerate(groups)]


def _policies(group: Group, *, folded: bool) -> Figure:
    arrays = group.records[0].arrays()
    names = [name for name in policy_names(arrays) if name != "greedy_released"]
    own = [name for name in names if not name.startswith("other_")]
    parts = [("Calibrated log-likelihood, nats", CLL, own), ("Test error, %", "error", own)]
    if len(own) < len(names):
        others = [name for name in names if name.startswith("other_")]
        parts.append(("Calibrated log-likelihood of the other network, nats", CLL, others))
    svgs = []
    for title, measure, chosen in parts:
        with panel(title, margins=(56, 14, 70, 42)) as drawn:
            given = iter(_GIVEN)
            for name in chosen:
                colour = LIGHT[_COLOURS.get(name) or next(given, "layer5")]
                values = arrays[f"{name}/{measure}"]
                label = policy_title(name, group)
                if len(arrays[f"{name}/counts"]) == 1:
                    drawn.axes.axhline(
                        float(values.mean()), color=colour, linewidth=1.0, linestyle="--",
                        label=label,
                    )  # fmt: skip
                    continue
                bars = values.std(axis=0, ddof=1) if len(values) > 1 else None
                drawn.axes.errorbar(
                    arrays[f"{name}/counts"], values.mean(axis=0), yerr=bars, color=colour,
                    marker="o", markersize=4, capsize=2, elinewidth=1.0, label=label,
                )  # fmt: skip
            counts = arrays["greedy/counts"]
            axes_lib.log_axis(drawn.axes, float(counts.min()), float(counts.max()), axis="x")
            drawn.axes.set_xlabel("views")
            axes_lib.legend_above(drawn.axes, columns=2)
        svgs.append(drawn.svg)
    rows = [
        [
            policy_title(name, group), int(count),
            rounded(float(np.mean(arrays[f"{name}/{CLL}"][:, i]))),
            rounded(float(np.mean(arrays[f"{name}/error"][:, i]))),
        ]
        for name in names
        for i, count in enumerate(arrays[f"{name}/counts"])
    ]  # fmt: skip
    divisions = len(arrays["greedy/error"])
    caption = (
        "Policies on the images that were not searched, means over "
        f"{divisions} division{'s' if divisions > 1 else ''} of the test set; bars are one "
        "standard deviation. Policies that are given or found stay as they are; views are drawn "
        "anew."
    )
    data = {
        "columns": ["policy", "views", "calibrated log-likelihood, nats", "error, %"],
        "rows": rows,
    }
    return Figure(
        f"Policies: {group.records[0].experiment}", caption, tuple(svgs), data=data,
        section=_SECTION, runs=group.describe(), folded=folded,
    )  # fmt: skip


def _picture(records: Sequence[Record]) -> str:
    drawn = [f for f in figures(records) if isinstance(f, Figure)]
    return with_background(drawn[0].svg[0]) if drawn else ""


PICTURES = {"gps-policies.svg": _picture}
