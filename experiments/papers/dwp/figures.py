"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.papers.dwp.configs import convergence, features, few_shot
from experiments.papers.dwp.configs.presets import TITLES
from experiments.papers.dwp.tables import PAPER, WORDS, groups_of
from experiments.report.axes import legend_above, log_axis, plain_number
from experiments.report.charts import LIGHT, Figure, Missing, panel, with_background
from experiments.suite.groups import Group
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import load_paper

_COLOURS = {
    "dwp": LIGHT["sparse"],
    "log-uniform": LIGHT["dense"],
    "standard-normal": LIGHT["layer1"],
    "gaussian": LIGHT["layer2"],
    "deterministic": LIGHT["layer3"],
    "dwp-xavier": LIGHT["layer4"],
    "dwp-filters": LIGHT["layer5"],
    "xavier": LIGHT["dense"],
    "filters": LIGHT["layer1"],
}
_SHOWN = 36
_KINDS = {"source": "source slices", "mean": "prior, means", "sample": "prior, samples"}


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: records of any experiments.
    """
    return [*kernels(records), labels_figure(records), widths_figure(records), *curves(records)]


def kernels(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws samples of every prior beside the slices that it was trained on."""
    drawn: list[Figure | Missing] = []
    for target in TITLES:
        experiment = f"{PAPER}.priors.{target}"
        found = groups_of(records, experiment)
        title = f"Kernels for {TITLES[target]}"
        if not found:
            drawn.append(Missing("There is no record", (f"adaptive-nets run {experiment}",), title))
            continue
        arrays = found[0].records[0].arrays()
        sizes = sorted({name.partition("/")[2] for name in arrays if "/" in name}, reverse=True)
        panels = [
            _grid(f"{size}, {words}", arrays[f"{kind}/{size}"], arrays[f"source/{size}"])
            for size in sizes
            for kind, words in _KINDS.items()
            if f"{kind}/{size}" in arrays
        ]
        drawn.append(
            Figure(
                title=title,
                caption="Slices of source networks, and slices drawn from the prior: the decoder's "
                "mean at random latent variables, and with its noise. One scale for each size.",
                svg=tuple(panels),
                data={"columns": ["size"], "rows": [[size] for size in sizes]},
                runs=found[0].describe(),
            )
        )
    return drawn


def _grid(title: str, slices: np.ndarray, scale: np.ndarray) -> str:
    """Draws slices as a square of images, dark for negative and light for positive weights."""
    side = min(int(math.sqrt(len(slices))), int(math.sqrt(_SHOWN)))
    height, width = slices.shape[1:]
    image = np.full((side * (height + 1) - 1, side * (width + 1) - 1), np.nan)
    for i, one in enumerate(slices[: side * side]):
        top, left = i // side * (height + 1), i % side * (width + 1)
        image[top : top + height, left : left + width] = one
    limit = float(np.percentile(np.abs(scale), 99)) or 1.0
    with panel(title, size=(230, 252), margins=(4, 4, 30, 4)) as drawn:
        drawn.axes.imshow(
            image, cmap="gray", vmin=-limit, vmax=limit, interpolation="nearest", aspect="equal"
        )
        drawn.axes.set_axis_off()
    return drawn.svg


def labels_figure(records: Sequence[Record], target: str = "mnist") -> Figure | Missing:
    """Draws accuracy over the number of labels, ours with deviations, the paper's dashed."""
    counts = few_shot.LABELS[target]
    lines = [
        _Line(
            WORDS[name],
            _COLOURS[name],
            {float(count): few_shot.name_of(target, count, name) for count in counts},
        )
        for name in few_shot.OF_TARGET[target]
    ]
    return _accuracy_figure(
        records,
        lines,
        title=f"Accuracy over labels, {TITLES[target]}",
        caption="Mean probability of sampled networks; bars are deviations over splits. Dashed: "
        "the publication.",
        listed=target,
        columns=("prior", "labels"),
        ticks={float(count): plain_number(count) for count in counts},
        xlabel="labelled images",
    )


def widths_figure(records: Sequence[Record], target: str = "mnist") -> Figure | Missing:
    """Draws the accuracy of frozen convolutions over their width."""
    scales = features.SCALES[target]
    lines = [
        _Line(
            features.WORDS[init],
            _COLOURS[init],
            {float(scale): features.name_of(target, scale, init) for scale in scales},
        )
        for init in features.INITS
    ]
    return _accuracy_figure(
        records,
        lines,
        title=f"Random features, {TITLES[target]}",
        caption="The convolutions keep their initial kernels, the classifier is trained. Dashed: "
        "read off the publication's figure.",
        listed="features",
        columns=("kernels", "width"),
        ticks={float(scale): str(scale) for scale in scales},
        xlabel="width",
    )


class _Line(NamedTuple):
    """Line of a figure of accuracies: its label, its colour, and the row of every point."""

    label: str
    colour: str
    rows: Mapping[float, str]


def _accuracy_figure(
    records: Sequence[Record],
    lines: Sequence[_Line],
    *,
    title: str,
    caption: str,
    listed: str,
    columns: tuple[str, str],
    ticks: Mapping[float, str],
    xlabel: str,
) -> Figure | Missing:
    """Draws accuracies of rows with deviations, and the paper's numbers as a dashed line."""
    rows: list[list[float | str]] = []
    runs = ""
    with panel("Test accuracy, %", size=(520, 330)) as drawn:
        for line in lines:
            points, paper = [], []
            for x, row in line.rows.items():
                number = load_paper(PAPER).rows[row].number("accuracy")
                if number is not None:
                    paper.append((x, number))
                found = groups_of(records, f"{PAPER}.{row}")
                values = found[0].values("accuracy") if found else []
                if values:
                    points.append((x, *mean_and_deviation(values)))
                    runs = runs or found[0].describe()
            if not points:
                continue
            at, mean, deviation = (list(column) for column in zip(*points, strict=True))
            drawn.axes.errorbar(
                at, mean, yerr=deviation, fmt="o-", ms=4, color=line.colour, label=line.label
            )
            if paper:
                drawn.axes.plot(*zip(*paper, strict=True), color=line.colour, linestyle=(0, (3, 3)))
            rows += [[line.label, *point] for point in points]
        log_axis(drawn.axes, min(ticks), max(ticks), axis="x")
        drawn.axes.set_xticks(list(ticks), list(ticks.values()))
        drawn.axes.set_xlabel(xlabel)
        legend_above(drawn.axes, columns=3)
    if not rows:
        return Missing("There is no record", (f"adaptive-nets list {PAPER}.{listed}",), title)
    return Figure(
        title=title,
        caption=caption,
        svg=(drawn.svg,),
        data={"columns": [*columns, "accuracy, %", "deviation"], "rows": rows},
        runs=runs,
    )


def curves(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws the first steps of every case, ours over seeds, the publication's points beside."""
    return [_curve(records, case) for case in convergence.CASES]


def _curve(records: Sequence[Record], case: str) -> Figure | Missing:
    title, _, _, _, measure, steps = convergence.CASES[case]
    unit = "Test accuracy, %" if measure == "accuracy" else "Test bound, nats"
    rows: list[list[float | str]] = []
    runs = ""
    with panel(unit, size=(460, 300)) as drawn:
        for init in features.INITS:
            name = f"convergence.{case}-{init}"
            found = groups_of(records, f"{PAPER}.{name}")
            if not found:
                continue
            runs = runs or found[0].describe()
            at, values = _stacked(found[0])
            colour = _COLOURS[init]
            drawn.axes.plot(at, values.mean(axis=0), color=colour, label=features.WORDS[init])
            drawn.axes.fill_between(
                at, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0
            )
            row = load_paper(PAPER).rows[name]
            paper = [(step, row.number(f"{measure}.{step}")) for step in steps]
            known = [(step, value) for step, value in paper if value is not None]
            drawn.axes.plot(
                *zip(*known, strict=True), color=colour, marker="x", linestyle="", markersize=6
            )
            rows += [
                [features.WORDS[init], int(step), float(mean)]
                for step, mean in zip(at, values.mean(axis=0), strict=True)
            ]
        drawn.axes.set_xlabel("step")
        legend_above(drawn.axes)
    if not rows:
        command = f"adaptive-nets list {PAPER}.convergence.{case}"
        return Missing("There is no record", (command,), f"First steps, {title}")
    return Figure(
        title=f"First steps, {title}",
        caption="Bands are the range over seeds; crosses are read off the publication's figure.",
        svg=(drawn.svg,),
        data={"columns": ["kernels", "step", unit], "rows": rows},
        runs=runs,
    )


def _stacked(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and the values of every seed, of the steps that all have."""
    arrays = [record.arrays() for record in group.records]
    count = min(len(found["step"]) for found in arrays)
    return arrays[0]["step"][:count], np.stack([found["value"][:count] for found in arrays])


def _picture(draw: Callable[[Sequence[Record]], Figure | Missing], number: int = 0):
    def picture(records: Sequence[Record]) -> str:
        found = draw([record for record in records if record.preset != "smoke"])
        return with_background(found.svg[number]) if isinstance(found, Figure) else ""

    return picture


def _first_kernels(records: Sequence[Record]) -> Figure | Missing:
    return kernels(records)[0]


PICTURES = {
    "dwp-source-kernels.svg": _picture(_first_kernels, 0),
    "dwp-prior-kernels.svg": _picture(_first_kernels, 1),
    "dwp-labels.svg": _picture(labels_figure),
    "dwp-features.svg": _picture(widths_figure),
    "dwp-first-steps.svg": _picture(lambda records: _curve(records, "mnist")),
}
