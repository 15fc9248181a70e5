"""Tables of detectors, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

PREFIX = "sact.coco."
DETECTIONS = "sact-detections.svg"
"""Picture of detections and ponder maps."""
_NONE = "Not measured: there is no record.\n"


def groups_of(records: Sequence[Record]) -> list[Group]:
    """Returns the groups of runs of this folder, without smoke runs."""
    chosen = [record for record in records if record.experiment.startswith(PREFIX)]
    return [group for group in group_records(chosen) if group.preset != "smoke"]


def precision_table(records: Sequence[Record]) -> str:
    """Renders average precision, FLOPs and images per second of every run."""
    rows = []
    for group in groups_of(records):
        spread = _mean(group, "flops_share_std")
        share = f"{_number(group, 'flops_share', 1)} ± {spread or 0:.1f}"
        rows.append(
            (
                f"`{group.records[0].experiment}`{group.row_text}",
                group.describe(),
                _number(group, "ap", 1),
                _number(group, "ap50", 1),
                _number(group, "ap75", 1),
                share if spread is not None else "–",
                *(_number(group, f"speed.{form}", 2) for form in ("dense", "skipping", "plain")),
            )
        )
    if not rows:
        return _NONE
    header = (
        "experiment", "runs", "mAP@[.5,.95], %", "AP50, %", "AP75, %", "FLOPs, % of plain",
        "dense, images/s", "skipping, images/s", "plain, images/s",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


def classes_table(records: Sequence[Record]) -> str:
    """Renders the average precision of each class, for sets of few classes."""
    rows = []
    for group in groups_of(records):
        first = f"`{group.records[0].experiment}`{group.row_text}, preset {group.preset}"
        for name in group.records[0].metrics:
            if name.startswith("ap50."):
                label = name.removeprefix("ap50.")
                rows.append(
                    (first, label, _number(group, name, 1), _number(group, f"ap.{label}", 1))
                )
                first = ""
    if not rows:
        return _NONE
    header = ("runs", "class", "AP50, %", "mAP@[.5,.95], %")
    return render.markdown_table(header, rows, (2, 3))


def ponder_table(records: Sequence[Record]) -> str:
    """Renders the ponder cost inside and outside of true boxes."""
    rows = []
    for group in groups_of(records):
        ratio, error = _mean(group, "ponder_ratio"), _mean(group, "ponder_ratio_error")
        if ratio is None or error is None:
            continue
        rows.append(
            (
                f"`{group.records[0].experiment}`{group.row_text}, preset {group.preset}",
                _number(group, "ponder_inside", 2),
                _number(group, "ponder_outside", 2),
                f"{ratio:.3f} ± {error:.3f}",
                _number(group, "ponder_higher", 1),
            )
        )
    if not rows:
        return _NONE
    header = (
        "runs", "inside boxes, units", "outside, units", "ratio ± standard error over images",
        "images with more inside, %",
    )  # fmt: skip
    return render.markdown_table(header, rows, (1, 2, 3, 4))


def picture(records: Sequence[Record]) -> str:
    """Renders the picture of detections, if a run has one."""
    if not any("pictures" in group.records[0].arrays() for group in groups_of(records)):
        return _NONE
    return f"![Detections and ponder maps](../../results/figures/{DETECTIONS})\n"


def _mean(group: Group, name: str) -> float | None:
    values = group.values(name)
    return sum(values) / len(values) if values else None


def _number(group: Group, name: str, digits: int) -> str:
    value = _mean(group, name)
    return "–" if value is None else f"{value:.{digits}f}"


PARTS = {
    "precision": precision_table,
    "classes": classes_table,
    "ponder": ponder_table,
    "picture": picture,
}
