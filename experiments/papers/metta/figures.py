"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.papers.metta.configs import EXPERIMENTS
from experiments.report.axes import legend_above, log_axis, plain_number
from experiments.report.charts import LIGHT, Figure, Missing, panel, with_background
from experiments.suite.experiment import Experiment
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

PROBED = "metta.cifar100.resnet32"
# Classifier -> (array over the numbers of views, metric of the image itself, colour).
_CLASSIFIERS = {
    "probe of plain embeddings": ("accuracy", "accuracy.plain", LIGHT["sparse"]),
    "of single views": ("augmented_accuracy", "augmented_accuracy.plain", LIGHT["layer4"]),
    "of mean embeddings": ("matched_accuracy", "matched_accuracy.plain", LIGHT["layer2"]),
    "neighbours": ("knn_accuracy", "knn_accuracy.plain", LIGHT["layer1"]),
    "the network's own head": ("top1", "top1.centre", LIGHT["dense"]),
}  # fmt: skip
_INTERPOLATED = (("mean embedding", "", LIGHT["sparse"]), ("one view", "single_", LIGHT["dense"]))
# (array, prefix of the probe, title); the probe of single views is the paper's kind of head.
_PANELS = (
    ("accuracy", "augmented_", "Accuracy, %, probe of single views"),
    ("calibrated_nll", "augmented_", "NLL calibrated, nats, probe of single views"),
    ("accuracy", "", "Accuracy, %, probe of plain embeddings"),
    ("calibrated_nll", "", "NLL calibrated, nats, probe of plain embeddings"),
)


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: records of any experiments.

    Returns:
        Figures in the order of the page, grouped by section.
    """
    drawn: list[Figure | Missing] = []
    for experiment in EXPERIMENTS:
        groups = _groups(experiment, records)
        if not groups:
            command = f"adaptive-nets run {experiment.id} --weights FILE"
            drawn.append(Missing("There is no record", (command,), experiment.title))
        for i, group in enumerate(groups):
            found = [_accuracy(experiment, group, i > 0), _interpolation(experiment, group, i > 0)]
            drawn += [figure for figure in found if figure is not None]
    return drawn


def _groups(experiment: Experiment, records: Sequence[Record]) -> list[Group]:
    """Returns the groups of an experiment; those of smoke runs only if there are no others."""
    groups = group_records([r for r in records if r.experiment == experiment.id])
    return [group for group in groups if group.preset != "smoke"] or groups


def _arrays(group: Group, name: str) -> np.ndarray | None:
    """Returns an array of every seed, stacked; None if a seed lacks it."""
    found = [record.arrays().get(name) for record in group.records]
    arrays = [array for array in found if array is not None]
    same = len(arrays) == len(found) and len({array.shape for array in arrays}) == 1
    return np.stack(arrays) if same else None


def _accuracy(experiment: Experiment, group: Group, folded: bool) -> Figure | None:
    """Draws the accuracy over the number of views; dashed lines are of the plain image."""
    counts = _arrays(group, "counts")
    if counts is None:
        return None
    counts = counts[0]
    rows: list[list[float | str]] = []
    with panel("Accuracy, %", size=(460, 300)) as drawn:
        for label, (name, itself, colour) in _CLASSIFIERS.items():
            values, plain = _arrays(group, name), group.values(itself)
            if values is None or not plain:
                continue
            drawn.axes.plot(counts, values.mean(axis=0), "o-", ms=4, color=colour, label=label)
            drawn.axes.fill_between(
                counts, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0
            )
            drawn.axes.axhline(float(np.mean(plain)), color=colour, linestyle=(0, (4, 3)))
            rows.append([label, 0, float(np.mean(plain))])
            rows += [
                [label, int(count), float(mean)]
                for count, mean in zip(counts, values.mean(axis=0), strict=True)
            ]
        log_axis(drawn.axes, float(counts[0]), float(counts[-1]), axis="x")
        drawn.axes.set_xticks(counts, [plain_number(count) for count in counts])
        drawn.axes.set_xlabel("views")
        legend_above(drawn.axes)
    return Figure(
        title="Accuracy over views",
        caption="Accuracy of mean embeddings over the number of random views; dashed: the image "
        "itself, or its central crop. Bands are the range over seeds. The database of the "
        "neighbours holds plain embeddings.",
        svg=(drawn.svg,),
        data={"columns": ["classifier", "views", "accuracy"], "rows": rows},
        section=experiment.title,
        runs=group.describe(),
        folded=folded,
    )


def _interpolation(experiment: Experiment, group: Group, folded: bool) -> Figure | None:
    """Draws accuracy and NLL between mean or single embeddings and the plain one."""
    share = _arrays(group, "interpolation/share")
    if share is None:
        return None
    rows: list[list[float | str]] = []
    panels = []
    for name, probe, title in _PANELS:
        if _arrays(group, f"interpolation/{probe}{name}") is None:
            continue
        with panel(title, size=(400, 280)) as drawn:
            for label, prefix, colour in _INTERPOLATED:
                values = _arrays(group, f"interpolation/{probe}{prefix}{name}")
                if values is None:
                    continue
                mean = values.mean(axis=0)
                drawn.axes.plot(share[0], mean, "o-", ms=3, color=colour, label=label)
                rows += [
                    [title, label, float(a), float(value)]
                    for a, value in zip(share[0], mean, strict=True)
                ]
            drawn.axes.set_xlabel("share of the plain embedding")
            legend_above(drawn.axes)
        panels.append(drawn.svg)
    return Figure(
        title="Interpolation to the plain embedding",
        caption="Linear probes on (1 − α)·x + α·y, where y is the embedding of the "
        "image itself and x the mean embedding or the embedding of one view; the results of single "
        "views are averaged over views. The temperature is fitted on the other half of the images.",
        svg=tuple(panels),
        data={"columns": ["measure", "x", "share", "value"], "rows": rows},
        section=experiment.title,
        runs=group.describe(),
        folded=folded,
    )


def _picture(title: str, records: Sequence[Record]) -> str:
    """Draws one figure of the probed network for documents; "" without records."""
    own = [r for r in records if r.experiment == PROBED and r.preset != "smoke"]
    found = [f for f in figures(own) if isinstance(f, Figure) and f.title == title]
    return with_background(found[0].svg[0]) if found else ""


def accuracy_picture(records: Sequence[Record]) -> str:
    """Returns an SVG document of the accuracy over the number of views."""
    return _picture("Accuracy over views", records)


def interpolation_picture(records: Sequence[Record]) -> str:
    """Returns an SVG document of the accuracy between mean and plain embeddings."""
    return _picture("Interpolation to the plain embedding", records)


PICTURES = {
    "metta-accuracy.svg": accuracy_picture,
    "metta-interpolation.svg": interpolation_picture,
}
