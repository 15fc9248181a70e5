"""Figures of the comparisons: learning curves of the sides, and columns of FractalNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from experiments.papers.zoo.comparisons import COMPARISONS, PAPER, Block, blocks_of
from experiments.report import axes as axes_lib
from experiments.report.charts import LAYERS, LIGHT, Figure, Missing, panel
from experiments.report.settings import curve, curve_data, rounded
from experiments.shared.paired import values_by_seed
from experiments.suite.groups import Group
from experiments.suite.records import Record

_COLOURS = tuple(LIGHT[name] for name in ("dense", "sparse", *LAYERS))
_TEXT = "bits"


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: Records of any experiments.

    Returns:
        Figures, and notes on missing ones, in the order of the page, grouped by section.
    """
    drawn: list[Figure | Missing] = []
    for comparison in COMPARISONS:
        blocks = blocks_of(comparison, records)
        if not blocks:
            commands = tuple(
                f"adaptive-nets run {PAPER}.{side.experiment}" for side in comparison.sides
            )
            what = "No learning curves: no side has a record"
            drawn.append(Missing(what, commands, comparison.title))
        for number, block in enumerate(blocks):
            for figure in (learning_curves(block), column_errors(block)):
                if figure is not None:
                    drawn.append(
                        dataclasses.replace(
                            figure, section=comparison.title, runs=_describe(block),
                            folded=number > 0,
                        )
                    )  # fmt: skip
    return drawn


def learning_curves(block: Block) -> Figure | None:
    """Draws test and training measure of every side over training."""
    comparison = block.comparison
    text = comparison.measure == _TEXT
    scale, title = (1.0, "Bits per character") if text else (100.0, "Error, %")
    found = []
    for side, group, colour in zip(comparison.sides, block.groups, _COLOURS, strict=False):
        shown = _counted_in_steps(group) if text and group is not None else group
        for part, style in (("test", "-"), ("train", ":")):
            values = curve(shown, f"{part}/{comparison.measure}", scale=scale)
            if values is not None:
                label = f"{side.label}, {'training' if part == 'train' else part}"
                found.append((label, colour, style, values))
    positive = [v for *_, c in found for v in (*c.low, *c.high) if v > 0]
    if not positive:
        return None
    with panel(title, size=(520, 300), margins=(46, 14, 68, 42)) as drawn:
        axes_lib.log_axis(drawn.axes, min(positive), max(positive))
        for label, colour, style, values in found:
            axes_lib.draw_curve(drawn.axes, values, colour, label, linestyle=style)
        drawn.axes.set_xlim(0, max(c.epochs[-1] for *_, c in found))
        drawn.axes.set_xlabel("step" if text else "epoch")
        axes_lib.legend_above(drawn.axes, columns=2)
    caption = (
        "Lines: mean over seeds, bands: lowest to highest seed. Test: all test data. Training: "
        "mean over the steps since the previous point, with the noise of training. The vertical "
        "axis is logarithmic."
    )
    data = curve_data([(label, values) for label, _, _, values in found])
    return Figure("Learning curves", caption, (drawn.svg,), data=data)


def column_errors(block: Block) -> Figure | None:
    """Draws the error of every column of FractalNet alone and of the whole network."""
    rows, names = [], []
    for side, group, colour in zip(block.comparison.sides, block.groups, _COLOURS, strict=False):
        if group is None:
            continue
        own = sorted(n for n in group.records[0].metrics if n.startswith("error.column"))
        if own:
            names = [*own, "error"]
            values = [list(values_by_seed(group, name).values()) for name in names]
            rows.append((side.label, colour, values))
    if not rows:
        return None
    with panel("Test error, %", size=(420, 280), margins=(46, 14, 50, 42)) as drawn:
        for label, colour, values in rows:
            for place, found in enumerate(values):
                drawn.axes.plot(
                    [place] * len(found), found, "o", color=colour, markersize=7, clip_on=False,
                    label=label if place == 0 else None,
                )  # fmt: skip
        drawn.axes.set_xticks(range(len(names)))
        columns = [f"column {number}" for number in range(len(names) - 1)]
        drawn.axes.set_xticklabels([*columns, "whole"])
        drawn.axes.set_xlim(-0.5, len(names) - 0.5)
        axes_lib.legend_above(drawn.axes, columns=2)
    caption = (
        "Column c alone is a chain of 2^c convolutions in each block, with the weights and the "
        "running statistics of the trained network. One dot per seed."
    )
    content = [
        [label, name, rounded(value)]
        for label, _, values in rows
        for name, found in zip(names, values, strict=True)
        for value in found
    ]
    data = {"columns": ["series", "part", "error"], "rows": content}
    return Figure("Columns of FractalNet", caption, (drawn.svg,), data=data)


def _counted_in_steps(group: Group) -> Group:
    """Returns the group with epochs of one step, since its records have no images."""
    one = {"data": {"batch_size": 1}}
    return Group(
        tuple(
            dataclasses.replace(
                record,
                content={
                    **record.content,
                    "config": {**record.config, **one},
                    "dataset": {**record.dataset, "train": 1},
                },
            )
            for record in group.records
        )
    )


def _describe(block: Block) -> str:
    return "; ".join(
        f"{side.label}: {group.describe()}"
        for side, group in zip(block.comparison.sides, block.groups, strict=True)
        if group is not None
    )
