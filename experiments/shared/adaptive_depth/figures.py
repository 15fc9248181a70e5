"""Figures of a network of adaptive depth: cost, halting and use of units."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.report import axes as axes_lib
from experiments.report.charts import LAYERS, LIGHT, Figure, panel
from experiments.report.pictures import map_grid, photo_grid
from experiments.report.settings import Curve, curve, curve_data, rounded
from experiments.suite.comparison import Group
from experiments.suite.records import mean_and_deviation


@dataclasses.dataclass(frozen=True)
class Point:
    """Method in a trade-off figure.

    Attributes:
        name: name of the method.
        colour: colour of its point.
        group: records of the method.
    """

    name: str
    colour: str
    group: Group


def trade_off(title: str, points: Sequence[Point]) -> Figure:
    """Draws test accuracy over FLOPs per image, a point for each method."""
    rows = []
    with panel("Test accuracy, %", size=(520, 290), margins=(50, 20, 46, 42)) as drawn:
        axes = drawn.axes
        for point in points:
            flops, _ = mean_and_deviation(point.group.values("flops"))
            accuracy, spread = mean_and_deviation(point.group.values("test_accuracy"))
            std = mean_and_deviation(point.group.values("flops_std") or [0.0])[0]
            axes.errorbar(
                flops / 1e6, accuracy, xerr=std / 1e6, fmt="o", color=point.colour,
                markersize=7, capsize=3, label=point.name,
            )  # fmt: skip
            rows.append([point.name, *(rounded(v) for v in (flops, std, accuracy, spread))])
        values = [row[3] for row in rows]
        room = max(1.0, 0.3 * (max(values) - min(values)))
        axes.set_ylim(min(values) - room, max(values) + room)
        axes.set_xlim(0, None)
        axes.set_xlabel("MFLOPs per image (2 per multiply-accumulate)")
        axes_lib.legend_above(axes, columns=2)
    caption = (
        f"{title}: all methods have the same training recipe. Horizontal bars: standard deviation "
        "of the cost over test images."
    )
    data = {
        "columns": ["method", "FLOPs", "deviation over images", "test accuracy, %", "over seeds"],
        "rows": rows,
    }
    return Figure("Accuracy against cost", caption, (drawn.svg,), data=data,
                  section="Accuracy against cost", runs=title)  # fmt: skip


def learning_curves(group: Group) -> Figure | None:
    """Draws cross-entropy and ponder cost of each block over training."""
    panels, data = [], []
    for title, parts in (
        (
            "Cross-entropy, nats",
            (("training", "train/nll", "dense"), ("test", "test/nll", "sparse")),
        ),
        (
            "Ponder cost per block, units",
            tuple((f"block {i}", f"train/ponder/{i}", LAYERS[i - 1]) for i in range(1, 5)),
        ),
    ):
        found = [(n, LIGHT[c], x) for n, key, c in parts if (x := curve(group, key)) is not None]
        if not found:
            continue
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            for name, colour, values in found:
                marker = {"marker": "o"} if len(values.epochs) < 4 else {}
                axes_lib.draw_curve(drawn.axes, values, colour, name, **marker)
            drawn.axes.set_ylim(0, None)
            drawn.axes.set_xlabel("epoch")
            axes_lib.legend_above(drawn.axes)
        panels.append(drawn.svg)
        data += [(f"{title}: {name}", values) for name, _, values in found]
    if not panels:
        return None
    caption = "Ponder cost: mean over training images and, if they halt independently, positions."
    return Figure("Learning curves", caption, tuple(panels), data=curve_data(data))


def halting_histograms(group: Group) -> Figure | None:
    """Draws histograms of the halting probabilities of units that ran, one panel per block."""
    arrays = group.records[0].arrays()
    blocks = _blocks(arrays, "halting")
    if not blocks:
        return None
    edges = arrays["halting_edges"]
    centres = (edges[1:] + edges[:-1]) / 2
    panels, rows = [], []
    for number, counts in blocks.items():
        with panel(f"Block {number}: share of decisions, %", size=(320, 230),
                   margins=(44, 10, 50, 42)) as drawn:  # fmt: skip
            for unit, row in enumerate(counts[: len(LAYERS)], start=1):
                if row.sum() == 0:
                    continue
                share = 100 * row / row.sum()
                colour = LIGHT[LAYERS[unit - 1]]
                drawn.axes.plot(centres, share, color=colour, label=f"unit {unit}")
            drawn.axes.set_ylim(0, 103)
            drawn.axes.set_xlim(0, 1)
            drawn.axes.set_xlabel("halting probability")
            axes_lib.legend_above(drawn.axes, columns=4)
        panels.append(drawn.svg)
        rows += [
            [number, unit, rounded(low), rounded(high), int(value)]
            for unit, row in enumerate(counts, start=1)
            for low, high, value in zip(edges[:-1], edges[1:], row, strict=True)
        ]
    caption = (
        "Decisions on the test set for which the unit ran; a block's last unit has no head. Mass "
        "near 0 and 1 means that thresholded and sampled halting agree."
    )
    data = {"columns": ["block", "unit", "from", "to", "decisions"], "rows": rows}
    return Figure("Halting probabilities", caption, tuple(panels), data=data)


def unit_usage(group: Group) -> Figure | None:
    """Draws the share of decisions that reach each unit, and its weight; shows dead units."""
    arrays = group.records[0].arrays()
    reached, weights = _blocks(arrays, "reached"), _blocks(arrays, "weight")
    if not reached:
        return None
    panels, rows = [], []
    for number, share in reached.items():
        with panel(f"Block {number}, %", size=(320, 220), margins=(44, 10, 46, 42)) as drawn:
            units = np.arange(1, len(share) + 1)
            drawn.axes.bar(units - 0.2, 100 * share, 0.4, color=LIGHT["dense"], label="runs for")
            drawn.axes.bar(units + 0.2, 100 * weights[number], 0.4, color=LIGHT["sparse"],
                           label="weight in the output")  # fmt: skip
            drawn.axes.set_ylim(0, 106)
            if len(units) < 10:
                drawn.axes.set_xticks(units)
            drawn.axes.set_xlabel("unit")
            axes_lib.legend_above(drawn.axes)
        panels.append(drawn.svg)
        rows += [
            [number, int(u), rounded(100 * s), rounded(100 * w)]
            for u, s, w in zip(units, share, weights[number], strict=True)
        ]
    dead = group.values("dead_units")
    caption = (
        "Share of decisions that reach a unit, and its mean weight in the block's output. "
        f"{dead[0]:g} units run for fewer than 1 % of decisions."
        if dead
        else ""
    )
    data = {"columns": ["block", "unit", "runs for, %", "weight, %"], "rows": rows}
    return Figure("Use of units", caption, tuple(panels), data=data)


def ponder_maps(group: Group) -> Figure | None:
    """Draws test images and the ponder cost of each block on them."""
    record = group.records[0]
    arrays = record.arrays()
    blocks = _blocks(arrays, "picture_map")
    if not blocks:
        return None
    mean = arrays["ponder_map"][None]
    pictures = [photo_grid("Test images", arrays["pictures"])]
    for number, maps in blocks.items():
        high = float(np.ceil(max(m.max() for m in blocks.values())))
        pictures.append(map_grid(f"Block {number}", maps, what="units", low=1.0, high=high))
    low, high = float(mean.min()), float(mean.max())
    pictures.append(
        map_grid("All blocks, mean over the test set", mean, what="units", low=low, high=high)
    )
    centre, border, more = (
        record.metric(f"ponder_{name}") for name in ("centre", "border", "centre_more")
    )
    caption = "Ponder cost per position; the maps are in the order of the images."
    if centre and border and more and more.value is not None:
        caption += (
            f" Over {centre.count:,} test images the central half costs {centre.value:.3f} units "
            f"per position, the other half {border.value:.3f}; {more.value:.1f} % of the images "
            "have a higher cost in the centre, where most objects are."
        )
    return Figure("Ponder maps", caption, pictures=tuple(pictures))


def series_panel(
    title: str, series: Sequence[tuple[str, str, Curve]], *, bottom: float | None = 0.0
) -> str:
    """Draws a panel of curves over training; returns its SVG."""
    with panel(title, margins=(50, 14, 50, 42)) as drawn:
        for name, colour, values in series:
            axes_lib.draw_curve(drawn.axes, values, colour, name, marker="o", markersize=3)
        drawn.axes.set_ylim(bottom, None)
        drawn.axes.set_xlabel("epoch")
        axes_lib.legend_above(drawn.axes)
    return drawn.svg


def _blocks(arrays: dict[str, np.ndarray], name: str) -> dict[int, np.ndarray]:
    """Returns the arrays called ``name.block1``, ``name.block2`` …, by block."""
    found = [key for key in arrays if key.startswith(f"{name}.block")]
    return {int(key.rpartition("block")[2]): arrays[key] for key in sorted(found)}
