"""Figures of a network of adaptive depth: cost, halting and use of units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.report import axes as axes_lib
from experiments.report.charts import LAYERS, LIGHT, Figure, panel
from experiments.report.pictures import map_grid, photo_grid
from experiments.report.settings import Curve, curve, curve_data, rounded
from experiments.shared.adaptive_depth.measures import central_half
from experiments.suite.groups import Group


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


def halting_histograms(group: Group, *, suffix: str = "") -> Figure | None:
    """Draws histograms of the halting probabilities of units that ran, one panel per block."""
    arrays = _arrays(group, suffix)
    blocks = _blocks(arrays, "halting")
    if not blocks:
        return None
    edges = arrays["halting_edges"]
    centres = (edges[1:] + edges[:-1]) / 2
    panels, rows = [], []
    for number, counts in blocks.items():
        with panel(f"Block {number}: share of decisions, %", size=(300, 230),
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
            axes_lib.legend_above(drawn.axes)
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


def unit_usage(group: Group, *, suffix: str = "") -> Figure | None:
    """Draws the share of decisions that reach each unit, and its weight; shows dead units."""
    arrays = _arrays(group, suffix)
    reached, weights = _blocks(arrays, "reached"), _blocks(arrays, "weight")
    if not reached:
        return None
    panels, rows = [], []
    for number, share in reached.items():
        with panel(f"Block {number}, %", size=(300, 220), margins=(44, 10, 46, 42)) as drawn:
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
    dead = group.values(f"dead_units{suffix}")
    caption = (
        "Share of decisions that reach a unit, and its mean weight in the block's output. "
        f"{dead[0]:g} {'unit runs' if dead[0] == 1 else 'units run'} for fewer than 1 % of "
        "decisions."
        if dead
        else ""
    )
    data = {"columns": ["block", "unit", "runs for, %", "weight, %"], "rows": rows}
    return Figure("Use of units", caption, tuple(panels), data=data)


def ponder_maps(group: Group, *, suffix: str = "") -> Figure | None:
    """Draws test images and the ponder cost of each block on them."""
    record, arrays = group.records[0], _arrays(group, suffix)
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
    caption = "Ponder cost per position; the maps are in the order of the images."
    caption += f" {mean_map_text(mean[0])}"
    more = record.metric(f"ponder_centre_more{suffix}")
    if more and more.value is not None:
        caption += (
            f" The central half costs more than the rest in {more.value:.1f} % of the "
            f"{more.count:,} test images."
        )
    return Figure("Ponder maps", caption, pictures=tuple(pictures))


def _arrays(group: Group, suffix: str) -> dict[str, np.ndarray]:
    """Returns the arrays of the first record whose names end in `suffix`, without it."""
    arrays = group.records[0].arrays()
    return {
        name.removesuffix(suffix): array for name, array in arrays.items() if name.endswith(suffix)
    }


def mean_map_text(mean: np.ndarray) -> str:
    """States where a mean ponder map is high: its halves, the most different ones first.

    Args:
        mean: float[H, W], mean ponder cost over images.
    """
    height, width = mean.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    halves = (
        ("the upper half", "the lower", np.broadcast_to(rows < height // 2, mean.shape)),
        ("the left half", "the right", np.broadcast_to(columns < width // 2, mean.shape)),
        ("the central half", "the rest", central_half(height, width)),
    )
    found = [
        (float(mean[inside].mean()), first, float(mean[~inside].mean()), second)
        for first, second, inside in halves
    ]
    found.sort(key=lambda half: -abs(half[0] - half[2]))
    parts = [f"{first} costs {a:.2f}, {second} {b:.2f}" for a, first, b, second in found]
    return f"In the mean over the test set, in units per position: {'; '.join(parts)}."


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
