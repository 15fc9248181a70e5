"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.papers.meta_layer.configs import EXPERIMENTS
from experiments.papers.meta_layer.fields import BATCH_MEAN
from experiments.report.axes import draw_curve, legend_above, log_axis
from experiments.report.charts import LIGHT, Figure, Missing, panel, with_background
from experiments.report.settings import curve, curve_data, rounded
from experiments.shared.comparisons import comparable
from experiments.suite.groups import Group
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import load_paper

_PAPER = "meta_layer"
# Kind -> label and colour.
_KINDS = {
    "conv2d": ("Conv2d", LIGHT["dense"]),
    "conv3d": ("Conv3d", LIGHT["sparse"]),
    "meta": ("Meta conv", LIGHT["layer1"]),
    "head": ("Meta head", LIGHT["layer2"]),
}
_MARKERS = {1: "o", 2: "s", 3: "^"}
_COSTS = (("parameters", "parameters"), ("macs", "MACs per image"))


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: records of any experiments.

    Returns:
        Figures in the order of the page, grouped by section.
    """
    own = [record for record in records if record.paper == _PAPER]
    drawn: list[Figure | Missing] = []
    trade_off = _trade_off(own)
    if trade_off is not None:
        drawn.append(trade_off)
    for test in _MARKERS:
        section = f"Test {test}"
        ids = _ids(test)
        settings = comparable(own, list(ids))
        for i, groups in enumerate(settings):
            found = {ids[name]: group for name, group in groups.items()}
            figure = _learning_curves(section, found, folded=i > 0)
            if figure is not None:
                drawn.append(figure)
        missing = [name for name in ids if not settings or name not in settings[0]]
        if missing:
            commands = tuple(f"adaptive-nets run {name} --preset quick" for name in missing)
            drawn.append(Missing("Networks without a record, or of other runs", commands, section))
    variants = [e for e in EXPERIMENTS if e.id.startswith(f"{_PAPER}.variants.")]
    for experiment in variants:
        for i, groups in enumerate(comparable(own, [experiment.id])):
            found = {"": groups[experiment.id]}
            figure = _learning_curves(experiment.title, found, folded=i > 0)
            if figure is not None:
                drawn.append(figure)
    return drawn


def _ids(test: int) -> dict[str, str]:
    """Returns the ids of the published networks of a test: id -> kind."""
    return {f"{_PAPER}.test{test}.{kind}": kind for kind in _KINDS}


@dataclasses.dataclass(frozen=True)
class _Point:
    """Network in the figure of all tests.

    Attributes:
        test: number of the test.
        kind: kind of the network.
        sizes: parameters, and MACs per image.
        accuracy: mean over seeds, %.
        deviation: standard deviation over seeds.
    """

    test: int
    kind: str
    sizes: tuple[float, float]
    accuracy: float
    deviation: float


def _points(records: Sequence[Record]) -> tuple[list[_Point], list[str]]:
    """Returns the points of the published networks, and descriptions of their runs."""
    points, runs = [], []
    for test in _MARKERS:
        ids = _ids(test)
        for name, group in next(iter(comparable(records, list(ids))), {}).items():
            values, kind = group.values("accuracy"), ids[name]
            parameters, macs = (group.values(cost) for cost, _ in _COSTS)
            if group.preset != "smoke" and values and parameters and macs:
                sizes = parameters[0], macs[0]
                points.append(_Point(test, kind, sizes, *mean_and_deviation(values)))
                runs.append(f"test {test}, {_KINDS[kind][0]}: {group.describe()}")
    return points, runs


def _trade_off(records: Sequence[Record]) -> Figure | None:
    """Draws accuracy over parameters and over MACs, ours and the article's, of every test."""
    points, runs = _points(records)
    if not points:
        return None
    panels = []
    for i, (cost, label) in enumerate(_COSTS):
        with panel("Accuracy, %", size=(460, 320), margins=(46, 14, 50, 42)) as drawn:
            axes = drawn.axes
            for point in points:
                marker, colour = _MARKERS[point.test], _KINDS[point.kind][1]
                axes.errorbar(
                    point.sizes[i], point.accuracy, yerr=point.deviation or None, fmt=marker,
                    capsize=3, color=colour,
                )  # fmt: skip
                theirs = _published(point.test, point.kind, cost)
                axes.plot(*theirs, marker, color=colour, fillstyle="none", markersize=9)
            for kind in dict.fromkeys(point.kind for point in points):
                name, colour = _KINDS[kind]
                axes.plot([], [], "o", color=colour, label=name)
            axes.plot([], [], "o", color=LIGHT["muted"], fillstyle="none", label="article")
            axes.set_xlabel(label)
            shown = [point.sizes[i] for point in points]
            log_axis(axes, min(shown), max(shown), axis="x")
            legend_above(axes)
        panels.append(drawn.svg)
    return Figure(
        "Accuracy over parameters and MACs",
        "Best epoch by the mean over test batches; mean and standard deviation over seeds. Hollow: "
        "the article, one run. Circles, squares and triangles: tests 1, 2 and 3.",
        tuple(panels),
        data={
            "columns": [
                "test", "network", "parameters", "MACs", "accuracy, %", "deviation",
                "article: accuracy, %",
            ],
            "rows": [
                [point.test, _KINDS[point.kind][0], *point.sizes, rounded(point.accuracy),
                 rounded(point.deviation), _published(point.test, point.kind, "macs")[1]]
                for point in points
            ],
        },
        section="All tests",
        runs="; ".join(runs),
    )  # fmt: skip


def _published(test: int, kind: str, cost: str) -> tuple[float, float]:
    """Returns the article's parameters or the notebook's MACs, and the article's accuracy, %."""
    rows = load_paper(_PAPER).rows
    own = rows[f"test{test}.{kind}"]
    size = (own if cost == "parameters" else rows[f"derived.test{test}.{kind}"]).number(cost)
    accuracy = own.number("accuracy")
    assert size is not None
    assert accuracy is not None
    return size, accuracy


def _learning_curves(section: str, groups: Mapping[str, Group], *, folded: bool) -> Figure | None:
    """Draws test accuracy and test and training loss over epochs.

    Args:
        section: heading of the section.
        groups: kind of a network, "" for a variant -> its records.
        folded: whether the page shows the figure on demand only.
    """
    panels, data = [], []
    plain = ("", LIGHT["sparse"])
    with panel("Test accuracy, %", margins=(46, 14, 50, 42)) as drawn:
        for kind, group in groups.items():
            label, colour = _KINDS.get(kind, plain)
            values = curve(group, f"test/{BATCH_MEAN}", scale=100.0)
            if values is not None:
                draw_curve(drawn.axes, values, colour, label or None)
                data.append((f"test accuracy, % {label}".rstrip(), values))
        drawn.axes.set_xlabel("epoch")
        if "" not in groups:
            legend_above(drawn.axes)
    if not data:
        return None
    panels.append(drawn.svg)
    with panel("Loss, nats", margins=(46, 14, 50, 42)) as drawn:
        highest = []
        for kind, group in groups.items():
            label, colour = _KINDS.get(kind, plain)
            for part, style in (("test", "-"), ("train", ":")):
                values = curve(group, f"{part}/nll")
                if values is None:
                    continue
                draw_curve(
                    drawn.axes, values, colour, f"{label} {part}".strip() if not kind else None,
                    linestyle=style,
                )  # fmt: skip
                data.append((f"{part} loss, nats {label}".rstrip(), values))
                highest += values.high
        drawn.axes.set_xlabel("epoch")
        drawn.axes.set_ylim(0, 1.05 * float(np.max(highest)) if highest else 1.0)
        if "" in groups:
            legend_above(drawn.axes)
    panels.append(drawn.svg)
    caption = (
        "Accuracy is the mean over test batches of 128 images. Bands are the range over seeds. "
        "Loss: test solid, training dotted; training is the mean over an epoch with dropout."
    )
    runs = "; ".join(
        f"{_KINDS[kind][0]}: {group.describe()}" if kind else group.describe()
        for kind, group in groups.items()
    )
    return Figure(
        "Learning curves", caption, tuple(panels), data=curve_data(data), section=section,
        runs=runs, folded=folded,
    )  # fmt: skip


def accuracy_picture(records: Sequence[Record]) -> str:
    """Returns an SVG document of the accuracy over parameters; "" without records."""
    figure = _trade_off([record for record in records if record.paper == _PAPER])
    return with_background(figure.svg[0]) if figure is not None else ""


PICTURES = {"meta-layer-accuracy.svg": accuracy_picture}
