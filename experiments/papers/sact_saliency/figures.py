"""Figures of saliency: photographs with both maps, and AUC-Judd over the parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.papers.sact_saliency import tables
from experiments.report import axes as axes_lib
from experiments.report.charts import LAYERS, LIGHT, Figure, Missing, panel, with_background
from experiments.report.heat_maps import coloured, levels
from experiments.report.pictures import map_grid, photo_grid
from experiments.report.settings import rounded
from experiments.suite.groups import Group
from experiments.suite.records import Record

_SECTION = "Saliency"
_ROWS = ("photograph", "fixations", "ponder map")


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws the maps and the parameters of every run with a network."""
    groups = [g for g in tables.groups_of(records) if "pictures" in g.records[0].arrays()]
    if not groups:
        command = "adaptive-nets run sact.saliency.mit1003 --network.source RUN"
        return [Missing("No figure: no run with a network has a record", (command,), _SECTION)]
    drawn: list[Figure | Missing] = []
    for i, group in enumerate(groups):
        drawn += [_maps(group, folded=i > 0), _parameters(group, folded=i > 0)]
    return drawn


def _maps(group: Group, *, folded: bool) -> Figure:
    arrays = group.records[0].arrays()
    ponder, human = arrays["ponder"], arrays["human"].astype(np.float64)
    low, high = float(ponder.min()), float(ponder.max())
    return Figure(
        f"Maps: {group.records[0].experiment}",
        "The first pictures of the most frequent size: photographs, blurred human fixations, and "
        f"the ponder cost of each pixel, summed over blocks. {tables.sentence(group)}".replace(
            "**", ""
        ),
        pictures=(
            photo_grid("Photographs", arrays["pictures"]),
            map_grid("Where people looked", human, what="of 255", low=0.0, high=255.0),
            map_grid("Where the network computed", ponder, what="units", low=low, high=high),
        ),
        section=_SECTION,
        runs=group.describe(),
        folded=folded,
    )


def _parameters(group: Group, *, folded: bool) -> Figure:
    record = group.records[0]
    grid = 100 * record.arrays()["auc/grid"]
    centre = 100 * float(record.arrays()["auc/centre"].mean())
    smoothing = record.config["smoothing"]
    sigmas = [100 * sigma for sigma in smoothing["sigmas"]]
    with panel("AUC-Judd, %", size=(460, 300), margins=(50, 14, 70, 42)) as drawn:
        for j, weight in enumerate(smoothing["centre_weights"]):
            colour = LIGHT[LAYERS[j % len(LAYERS)]]
            style = "-" if j < len(LAYERS) else "--"
            drawn.axes.plot(
                sigmas, grid[:, j], style, marker="o", markersize=4, color=colour,
                label=f"λ {weight:g}",
            )  # fmt: skip
        drawn.axes.axhline(centre, color=LIGHT["muted"], linestyle=":", label="centre")
        drawn.axes.set_xlabel("σ, % of the longer side")
        axes_lib.legend_above(drawn.axes)
    rows = [
        [rounded(sigma), weight, rounded(float(grid[i, j]))]
        for i, sigma in enumerate(sigmas)
        for j, weight in enumerate(smoothing["centre_weights"])
    ]
    return Figure(
        f"Parameters: {record.experiment}",
        "Mean over all pictures at each candidate of the blur σ and the weight λ of the centre "
        "bias; each division selects on one half. Dotted: the centre baseline.",
        svg=(drawn.svg,),
        data={"columns": ["sigma, % of the longer side", "weight", "AUC-Judd, %"], "rows": rows},
        section=_SECTION,
        runs=group.describe(),
        folded=folded,
    )


def maps_picture(records: Sequence[Record]) -> str:
    """Returns an SVG of photographs, human maps and ponder maps; "" without records."""
    groups = [g for g in tables.groups_of(records) if "pictures" in g.records[0].arrays()]
    if not groups:
        return ""
    arrays = groups[0].records[0].arrays()
    photographs = arrays["pictures"]
    rows = [
        photographs,
        np.stack([coloured(levels(human)) for human in arrays["human"]]),
        np.stack([coloured(levels(ponder)) for ponder in arrays["ponder"]]),
    ]
    count, height, width = photographs.shape[:3]
    sheet = np.full((3 * (height + 4), count * (width + 4), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = i * (height + 4), j * (width + 4)
            sheet[top : top + height, left : left + width] = tile
    side = 86
    title = "Photographs, where people looked, and where the network computed"
    size = (side + sheet.shape[1], 26 + sheet.shape[0])
    with panel(title, size=size, margins=(side, 0, 26, 0)) as drawn:
        drawn.axes.imshow(sheet, interpolation="nearest", aspect="auto")
        drawn.axes.grid(False)
        drawn.axes.set_xticks([])
        places = [i * (height + 4) + height / 2 for i in range(3)]
        drawn.axes.set_yticks(places, _ROWS)
        for side_name in ("left", "bottom"):
            drawn.axes.spines[side_name].set_visible(False)
    return with_background(drawn.svg)


PICTURES = {tables.MAPS: maps_picture}
