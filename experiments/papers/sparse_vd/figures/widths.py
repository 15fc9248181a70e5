"""Figure of the VGG-like networks: error and compression over the width."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.papers.sparse_vd.configs.vgg import SETS, WIDTHS, name_of
from experiments.report.axes import legend_above, log_axis
from experiments.report.charts import LIGHT, Figure, panel
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import load_paper

_METHODS = {"original": ("dense", LIGHT["dense"]), "sparse": ("Sparse VD", LIGHT["sparse"])}
_MEASURES = {"error": ("Test error, %", ("original", "sparse")),
             "compression": ("Compression, x", ("sparse",))}  # fmt: skip


def over_widths(data: str, records: Sequence[Record]) -> Figure | None:
    """Draws error and compression over the width on one data set; None without a record.

    Args:
        data: key of `SETS`.
        records: records of any experiments.
    """
    groups = {
        (method, width): found
        for method in _METHODS
        for width in WIDTHS
        if (found := _largest(f"sparse_vd.{name_of(data, width)}-{method}", records))
    }
    if not groups:
        return None
    rows = load_paper("sparse_vd").rows
    panels, lines = [], []
    for measure, (title, methods) in _MEASURES.items():
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            shown = []
            for method in methods:
                label, colour = _METHODS[method]
                paper = [
                    (width, value)
                    for width in WIDTHS
                    if (value := rows[f"{name_of(data, width)}-{method}"].number(measure))
                    is not None
                ]
                if paper:
                    drawn.axes.plot(
                        *zip(*paper, strict=True), ":o", color=colour, fillstyle="none",
                        label=f"{label}, paper",
                    )  # fmt: skip
                ours = [
                    (width, *mean_and_deviation(values), group.describe())
                    for (of, width), group in groups.items()
                    if of == method and (values := group.values(measure))
                ]
                if ours:
                    widths, means, deviations, _ = zip(*ours, strict=True)
                    drawn.axes.errorbar(
                        widths, means, yerr=deviations, fmt="-o", capsize=3, color=colour,
                        label=f"{label}, ours",
                    )  # fmt: skip
                lines += [[label, measure, *found] for found in ours]
                shown += [value for _, value in paper] + [found[1] for found in ours]
            if shown:
                log_axis(drawn.axes, min(shown), max(shown))
            drawn.axes.set_xticks(WIDTHS)
            drawn.axes.set_xlabel("width k")
            legend_above(drawn.axes, columns=2)
        panels.append(drawn.svg)
    return Figure(
        f"Error and compression over the width, {SETS[data]}",
        "Hollow: the paper's points, measured from its figure. Filled: ours, at the largest size "
        "that was run.",
        tuple(panels),
        data={
            "columns": ["method", "measure", "width", "mean", "standard deviation", "runs"],
            "rows": lines,
        },
    )


def _largest(name: str, records: Sequence[Record]) -> Group | None:
    """Returns the first group of an experiment, which is at the largest size."""
    groups = group_records([record for record in records if record.experiment == name])
    return next((g for g in groups if not g.row_changes and g.preset != "smoke"), None)
