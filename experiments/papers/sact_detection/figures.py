"""Figures of detectors: photographs with detections, and ponder maps, as the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.papers.sact_detection import tables
from experiments.report.box_drawings import TRUTH, class_colour, draw_boxes
from experiments.report.charts import Figure, Missing, panel, with_background
from experiments.report.heat_maps import levels, overlaid
from experiments.report.pictures import map_grid, photo_grid
from experiments.suite.groups import Group
from experiments.suite.records import Record

SHOWN = 0.5
"""Least score of a detection that is drawn."""
_SECTION = "Detection"


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws detections and ponder maps of every run with pictures."""
    groups = _with_pictures(records)
    if not groups:
        command = "adaptive-nets run sact.coco.bccd-resnet32-sact --preset day --start.weights FILE"
        return [Missing("No figure: no run of a detector has a record", (command,), _SECTION)]
    return [_detections(group, folded=i > 0) for i, group in enumerate(groups)]


def _with_pictures(records: Sequence[Record]) -> list[Group]:
    return [g for g in tables.groups_of(records) if "pictures" in g.records[0].arrays()]


def drawn_pictures(arrays: Mapping[str, Any]) -> np.ndarray:
    """Draws true boxes in white and detections in the colours of their classes.

    Args:
        arrays: arrays of a record.

    Returns:
        uint8[P, h, w, 3].
    """
    pictures = []
    for i, pixels in enumerate(arrays["pictures"]):
        real = arrays["true.labels"][i] >= 0
        shown = (arrays["found.labels"][i] >= 0) & (arrays["found.scores"][i] >= SHOWN)
        labels = arrays["found.labels"][i][shown]
        boxes = np.concatenate([arrays["found.boxes"][i][shown], arrays["true.boxes"][i][real]])
        colours = [*(class_colour(int(label)) for label in labels), *([TRUTH] * int(real.sum()))]
        pictures.append(draw_boxes(pixels, boxes, [""] * len(boxes), colours))
    return np.stack(pictures)


def _detections(group: Group, *, folded: bool) -> Figure:
    arrays = group.records[0].arrays()
    pictures = [photo_grid("Detections", drawn_pictures(arrays))]
    text = (
        f"Test images with detections of a score of at least {SHOWN:g} in the colours of their "
        "classes, and true boxes in white."
    )
    if "ponder" in arrays:
        ponder = arrays["ponder"].astype(np.float64)
        low, high = float(ponder.min()), float(ponder.max())
        pictures.append(
            map_grid("Where the network computed", ponder, what="units", low=low, high=high)
        )
        text += " Below, the ponder cost of each pixel, summed over the shared blocks."
    return Figure(
        f"Detections: {group.records[0].experiment}",
        text,
        pictures=tuple(pictures),
        section=_SECTION,
        runs=group.describe(),
        folded=folded,
    )


def detections_picture(records: Sequence[Record]) -> str:
    """Returns an SVG of detections, over the ponder maps where there are some; "" without."""
    groups = _with_pictures(records)
    if not groups:
        return ""
    adaptive = [group for group in groups if "ponder" in group.records[0].arrays()]
    arrays = (adaptive or groups)[0].records[0].arrays()
    rows = [drawn_pictures(arrays)]
    names = ["detections"]
    if "ponder" in arrays:
        pairs = zip(arrays["pictures"], arrays["ponder"], strict=True)
        rows.append(np.stack([overlaid(pixels, levels(ponder)) for pixels, ponder in pairs]))
        names.append("ponder map")
    count, height, width = rows[0].shape[:3]
    sheet = np.full((len(rows) * (height + 4), count * (width + 4), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = i * (height + 4), j * (width + 4)
            sheet[top : top + height, left : left + width] = tile
    side = 86
    size = (side + sheet.shape[1], 26 + sheet.shape[0])
    with panel("Detections, and where the network computed", size=size,
               margins=(side, 0, 26, 0)) as drawn:  # fmt: skip
        drawn.axes.imshow(sheet, interpolation="nearest", aspect="auto")
        drawn.axes.grid(False)
        drawn.axes.set_xticks([])
        drawn.axes.set_yticks([i * (height + 4) + height / 2 for i in range(len(rows))], names)
        for name in ("left", "bottom"):
            drawn.axes.spines[name].set_visible(False)
    return with_background(drawn.svg)


PICTURES = {tables.DETECTIONS: detections_picture}
