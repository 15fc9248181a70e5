"""Figures of the methods: calibrated log-likelihood and equivalents over the number of samples."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.papers.tta.methods.table import (
    AUGMENTED,
    NAMES,
    ORDER,
    Comparison,
    comparisons,
)
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, Missing, panel, with_background
from experiments.report.settings import rounded
from experiments.shared.ensembling.scores import CLL
from experiments.suite.records import Record

_SECTION = "Ensembles"
_COLOURS = dict(
    zip(
        ORDER,
        (
            "muted", "dense", "sparse", "layer1", "layer2", "layer3", "layer4", "layer5", "ink",
        ),
        strict=True,
    )
)  # fmt: skip
_LEGEND_COLUMNS = 4


def method_figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws CLL and deep ensemble equivalents over the number of samples, for each preset."""
    found = comparisons(records)
    if not found:
        command = "adaptive-nets run tta.methods.de --preset day"
        return [
            Missing("No figure of methods: no deep ensemble has a record", (command,), _SECTION)
        ]
    return [_figure(comparison, folded=i > 0) for i, comparison in enumerate(found)]


def _figure(comparison: Comparison, *, folded: bool) -> Figure:
    svgs, rows = [], []
    for prefix, words in (("", "images as they are"), (AUGMENTED, "augmented images")):
        scores = {
            name: (method.counts, method.curve(CLL, prefix))
            for name, method in comparison.methods.items()
        }
        sizes = {
            name: (method.counts, comparison.equivalents(name, prefix))
            for name, method in comparison.methods.items()
        }
        svgs += [
            _panel(f"CLL of {words}, nats", scores),
            _panel(f"Equivalent deep ensemble, {words}", sizes),
        ]
        rows += [
            [NAMES[name], words, count, rounded(float(cll)), rounded(float(size))]
            for name in comparison.methods
            for count, cll, size in zip(*scores[name], sizes[name][1], strict=True)
        ]
    ensemble = comparison.methods["de"]
    images = ensemble.group.records[0].dataset["test"]
    caption = (
        f"ResNet-8 on CIFAR-10, {images:,} test images; {comparison.status.strip('*')}. A sample "
        "is a member, with a view of its own under augmentation. Equivalents are sizes of the deep "
        f"ensemble with the same augmentation, at most {ensemble.counts[-1]}."
    )
    data = {"columns": ["method", "images", "samples", "CLL, nats", "equivalent"], "rows": rows}
    return Figure(
        "Methods over the number of samples", caption, tuple(svgs), data=data, section=_SECTION,
        runs=comparison.runs, folded=folded,
    )  # fmt: skip


def _panel(title: str, curves: dict) -> str:
    with panel(title, margins=(56, 14, 50, 42)) as drawn:
        for name, (counts, values) in curves.items():
            drawn.axes.plot(
                counts, values, color=LIGHT[_COLOURS[name]], label=NAMES[name], marker="o",
                markersize=3.5, linestyle="--" if name == "single" else "-",
            )  # fmt: skip
        drawn.axes.set_xlabel("samples")
        axes_lib.legend_above(drawn.axes, columns=_LEGEND_COLUMNS)
    return drawn.svg


def _picture(records: Sequence[Record]) -> str:
    """Draws the CLL of the images as they are for documents."""
    drawn = [f for f in method_figures(records) if isinstance(f, Figure)]
    return with_background(drawn[0].svg[0]) if drawn else ""


def _picture_augmented(records: Sequence[Record]) -> str:
    drawn = [f for f in method_figures(records) if isinstance(f, Figure)]
    return with_background(drawn[0].svg[2]) if drawn else ""


PICTURES = {"tta-methods.svg": _picture, "tta-methods-augmented.svg": _picture_augmented}
