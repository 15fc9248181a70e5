"""Figures of one search: its path, masks and impacts, and the fine-tuning after it."""

from __future__ import annotations

import numpy as np

from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, panel
from experiments.report.pictures import map_sheet
from experiments.report.settings import curve, curve_data, rounded
from experiments.suite.groups import Group

_LAYERS = ("layer1", "layer2", "layer3", "layer4", "layer5")


def search_path(group: Group) -> Figure | None:
    """Draws the training loss over the reduction of cost, and the level of every layer."""
    arrays = group.records[0].arrays()
    if "search_loss" not in arrays or not len(arrays["search_keep"]):
        return None
    loss, cost = arrays["search_loss"], group.records[0].config["search"]["cost"]
    saved = {"MACs": arrays["search_macs_reduction"]}
    if cost == "time":
        saved["time"] = arrays["search_reduction"]
    with panel("Loss on training images, nats", margins=(46, 14, 50, 42)) as left:
        for (name, x), colour in zip(saved.items(), ("dense", "sparse"), strict=False):
            left.axes.plot(x, loss, color=LIGHT[colour], marker="o", markersize=3, label=name)
        left.axes.set_xlabel("reduction, x")
        axes_lib.legend_above(left.axes)
    names = list(dict.fromkeys(arrays["search_layer"].tolist()))
    steps = np.arange(len(loss))
    keeps = {name: [1.0] for name in names}
    for layer, keep in zip(arrays["search_layer"], arrays["search_keep"], strict=True):
        for name, values in keeps.items():
            values.append(float(keep) if name == layer else values[-1])
    with panel("Share of positions computed, %", margins=(46, 14, 50, 42)) as right:
        for i, (name, values) in enumerate(sorted(keeps.items())):
            colour = LIGHT[_LAYERS[i % len(_LAYERS)]]
            right.axes.step(steps, 100 * np.array(values), where="post", color=colour, label=name)
        right.axes.set_ylim(0, 104)
        right.axes.set_xlabel("accepted steps")
        axes_lib.legend_above(right.axes)
    data = {
        "columns": ["step", "loss, nats", "fewer MACs, x", f"less {cost}, x", *keeps],
        "rows": [
            [int(i), *(rounded(float(v)) for v in row)]
            for i, *row in zip(
                steps, loss, arrays["search_macs_reduction"], arrays["search_reduction"],
                *keeps.values(), strict=True)
        ],
    }  # fmt: skip
    rule = "adds the least loss per saved cost"
    if group.records[0].config["search"].get("order") == "saving first":
        rule = f"saves most without an increase of the loss, or else {rule}"
    caption = (
        f"Each step perforates further the layer that {rule}. Weights are those of the trained "
        "network throughout."
    )
    return Figure("Path of the search", caption, (left.svg, right.svg), data=data)


def masks(group: Group) -> Figure | None:
    """Draws the masks of the network after the search."""
    arrays = group.records[0].arrays()
    found = {n.partition(".")[2]: a for n, a in arrays.items() if n.startswith("mask.")}
    if not found:
        return None
    share = ", ".join(f"{name} {100 * mask.mean():.0f} %" for name, mask in found.items())
    picture = map_sheet(
        "masks", found, what="masks", ends=("copied", "", "computed"), note=f"Computed: {share}."
    )
    caption = "Positions that every perforated layer computes; the others copy the nearest one."
    return Figure("Masks", caption, pictures=(picture,))


def impact_maps(group: Group) -> Figure | None:
    """Draws the average impacts in the trained network."""
    record = group.records[0]
    found = {
        n.partition(".")[2]: a
        for n, a in record.arrays().items()
        if n.startswith("impact.") and a.max() > 0
    }
    if not found:
        return None
    rows = []
    for name in found:
        bias = record.metric(f"centre_bias.{name}")
        grid = record.metric(f"pooling_correlation.{name}")
        rows.append(
            [name, *(None if m is None or m.value is None else rounded(m.value)
                     for m in (bias, grid))]
        )  # fmt: skip
    picture = map_sheet(
        "average impact", found, what="average impacts", ends=("0", "", "largest of the layer")
    )
    caption = (
        "First-order estimate of the change of the loss when a position is set to zero, in the "
        "network before perforation."
    )
    data = {
        "columns": ["layer", "central half over all", "correlation with pooling windows"],
        "rows": rows,
    }
    return Figure("Average impact", caption, pictures=(picture,), data=data)


def tuning(group: Group) -> Figure | None:
    """Draws the test error during fine-tuning of the perforated network."""
    error = curve(group, "test/error", scale=100)
    before, after = group.values("error"), group.values("perforated_error")
    control = group.values("control_error")
    if error is None or not before or not after:
        return None
    with panel("Test error, %", margins=(46, 108, 30, 42)) as drawn:
        axes = drawn.axes
        axes_lib.draw_curve(axes, error, LIGHT["sparse"])
        axes.plot([0], [after[0]], color=LIGHT["sparse"], marker="o", markersize=5)
        axes.axhline(before[0], color=LIGHT["dense"], linewidth=1.2)
        ends = [(before[0], "unperforated", LIGHT["dense"])]
        if control:
            axes.axhline(control[0], color=LIGHT["dense"], linewidth=1.2, linestyle="--")
            ends.append((control[0], "the same, tuned", LIGHT["dense"]))
        axes.set_xlabel("epochs of tuning")
        axes_lib.label_ends(
            axes,
            [*ends, (error.mean[-1], "perforated", LIGHT["sparse"])],
        )  # fmt: skip
    caption = "Masks are fixed. The dot is the perforated network before tuning."
    if control:
        caption += " The dashed line is the unperforated network after the same tuning."
    series = [("perforated", error)]
    return Figure("Fine-tuning", caption, (drawn.svg,), data=curve_data(series))
