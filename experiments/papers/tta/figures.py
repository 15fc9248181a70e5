"""Figures of the paper's experiments: measures over the number of views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.papers.tta.methods import figures as methods
from experiments.papers.tta.tables import groups_of
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, Missing, panel, with_background
from experiments.report.settings import rounded
from experiments.shared.ensembling.scores import CLL
from experiments.suite.groups import Group
from experiments.suite.records import Record

_SECTION = "Test-time augmentation"
_COLOURS = ("dense", "sparse", "layer1", "layer2")
_QUANTITIES = (
    ("Calibrated log-likelihood, nats", CLL),
    ("Log-likelihood, nats", "ll"),
    ("Test error, %", "error"),
)


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws measures over the number of views, for each size of runs."""
    sizes: dict[tuple[str, str], list[Group]] = {}
    for group in groups_of(records):
        key = group.preset, group.records[0].dataset["fingerprint"]
        sizes.setdefault(key, []).append(group)
    if not sizes:
        command = "adaptive-nets run tta.cifar10.resnet32 --preset quick --weights FILE"
        missing = Missing("No figure: no run has a record", (command,), _SECTION)
        return [missing, *methods.method_figures(records)]
    drawn = [_over_views(groups, folded=i > 0) for i, groups in enumerate(sizes.values())]
    return [*drawn, *methods.method_figures(records)]


def _range(groups: Sequence[Group]) -> tuple[float, float]:
    counts = np.concatenate([group.records[0].arrays()["counts"] for group in groups])
    return float(counts.min()), float(counts.max())


def _title(group: Group) -> str:
    return group.records[0].experiment.rpartition(".")[2].replace("resnet", "ResNet-")


def _over_views(groups: Sequence[Group], *, folded: bool) -> Figure:
    svgs = []
    for title, name in _QUANTITIES:
        with panel(title, margins=(56, 14, 50, 42)) as drawn:
            for group, colour in zip(groups, _COLOURS, strict=False):
                arrays = group.records[0].arrays()
                drawn.axes.plot(
                    arrays["counts"], arrays[name], color=LIGHT[colour], marker="o", markersize=4,
                    label=_title(group),
                )  # fmt: skip
                drawn.axes.axhline(
                    float(arrays[f"plain/{name}"]), color=LIGHT[colour], linewidth=1.0,
                    linestyle="--",
                )  # fmt: skip
            axes_lib.log_axis(drawn.axes, *_range(groups), axis="x")
            drawn.axes.set_xlabel("views")
            axes_lib.legend_above(drawn.axes, columns=3)
        svgs.append(drawn.svg)
    rows = []
    for group in groups:
        arrays = group.records[0].arrays()
        rows += [
            [_title(group), int(count), *(rounded(float(arrays[n][i])) for _, n in _QUANTITIES)]
            for i, count in enumerate(arrays["counts"])
        ]
    images = groups[0].records[0].dataset["test"]
    caption = (
        "Predictions averaged over random crops and flips; dashed lines are the images as they "
        f"are. {images:,} test images; the temperature is fitted on the other half of them."
    )
    data = {"columns": ["network", "views", *(title for title, _ in _QUANTITIES)], "rows": rows}
    return Figure(
        "Measures over the number of views", caption, tuple(svgs), data=data, section=_SECTION,
        runs=groups[0].describe(), folded=folded,
    )  # fmt: skip


def _picture(records: Sequence[Record]) -> str:
    drawn = [f for f in figures(records) if isinstance(f, Figure) and f.section == _SECTION]
    return with_background(drawn[0].svg[0]) if drawn else ""


PICTURES = {"tta-views.svg": _picture, **methods.PICTURES}
