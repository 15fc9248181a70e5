"""Figures of accuracy over FLOPs, of networks trained alike."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, panel
from experiments.report.settings import rounded
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation

PACT = "PACT, thresholded"
"""Method of probabilistic networks in a trade-off."""

# Pattern of model names, label and colour of each method in a trade-off.
_METHODS = (
    (re.compile(r"resnetv2_(\d+)(?:_cifar10)?"), "plain", LIGHT["dense"]),
    (re.compile(r"resnet(\d+)_sact(?:_cifar10)?"), "SACT", LIGHT["sparse"]),
    (re.compile(r"resnet(\d+)_act(?:_cifar10)?"), "ACT", LIGHT["layer1"]),
    (re.compile(r"resnet(\d+)_pact(?:_cifar10)?"), PACT, LIGHT["layer4"]),
)
_TUNED = {"SACT": ("SACT", LIGHT["sparse"]), "ACT": ("ACT", LIGHT["layer1"]),
          "PACT": (PACT, LIGHT["layer4"])}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Point:
    """Point of a method in a trade-off figure.

    Attributes:
        method: name of the method.
        note: setting of the point, such as its τ; may be empty.
        colour: colour of the method.
        flops: mean FLOPs per image.
        flops_std: standard deviation of the FLOPs over images.
        accuracy: test accuracy, %.
        spread: standard deviation of the accuracy over seeds; if there is one seed, its standard
            error over images.
        hollow: whether a flag was changed that defines the paper's row.
    """

    method: str
    note: str
    colour: str
    flops: float
    flops_std: float
    accuracy: float
    spread: float = 0.0
    hollow: bool = False


def point_of(
    group: Group, method: str, note: str, colour: str, *, suffix: str = "", accuracy="test_accuracy"
) -> Point:
    """Returns the point of a group of records.

    Args:
        group: records of one configuration.
        method: name of the method.
        note: setting of the point.
        colour: colour of the method.
        suffix: end of the names of its metrics, such as ".tau0.01".
        accuracy: name of the metric of its accuracy, without the suffix.
    """
    flops = "plain_flops" if accuracy == "plain_accuracy" else "flops"
    deviations = group.values(f"flops_std{suffix}") if flops == "flops" else []
    values = group.values(accuracy + suffix)
    mean, spread = mean_and_deviation(values)
    if len(values) == 1:
        metric = group.records[0].metric(accuracy + suffix)
        assert metric is not None
        spread = (mean * (100 - mean) / metric.count) ** 0.5
    return Point(
        method,
        note,
        colour,
        mean_and_deviation(group.values(flops + suffix))[0],
        mean_and_deviation(deviations or [0.0])[0],
        mean,
        spread,
        bool(group.row_changes),
    )


def trade_off(title: str, points: Sequence[Point], *, remark: str = "") -> Figure:
    """Draws test accuracy over FLOPs per image, a curve for each method with several points.

    Args:
        title: networks and training of the points.
        points: the points.
        remark: sentence of the caption on what the points share.
    """
    points = sorted(points, key=lambda p: p.flops)
    methods = list(dict.fromkeys(p.method for p in points))
    with panel("Test accuracy, %", margins=(50, 20, 46, 42)) as drawn:
        axes = drawn.axes
        for method in methods:
            own = [p for p in points if p.method == method]
            if len(own) > 1:
                axes.plot(
                    [p.flops / 1e6 for p in own], [p.accuracy for p in own],
                    color=own[0].colour, linewidth=1, label=method,
                )  # fmt: skip
        for point in points:
            alone = sum(p.method == point.method for p in points) == 1
            place = point.flops / 1e6, point.accuracy
            axes.errorbar(
                *place, xerr=point.flops_std / 1e6, yerr=point.spread, fmt="o",
                color=point.colour, markersize=6, capsize=3,
                label=_label(point) if alone else None,
                fillstyle="none" if point.hollow else "full",
            )  # fmt: skip
            if not alone and point.note:
                axes.annotate(
                    point.note, place, xytext=(4, -11), textcoords="offset points", fontsize=7,
                    color=point.colour,
                )  # fmt: skip
        values = [p.accuracy for p in points]
        room = max(0.5, 0.3 * (max(values) - min(values)))
        axes.set_ylim(min(values) - room, max(values) + room)
        axes.set_xlim(0, None)
        axes.set_xlabel("MFLOPs per image (2 per multiply-accumulate)")
        axes_lib.legend_above(axes)
    caption = (
        f"{title}{remark} Horizontal bars: standard deviation of the cost over test images; "
        "vertical ones: over seeds, or the standard error over images of one seed."
    )
    if any(point.hollow for point in points):
        caption += " Hollow: a flag that defines the paper's row was changed."
    data = {
        "columns": ["method", "FLOPs", "deviation over images", "test accuracy, %", "spread"],
        "rows": [
            [_label(p), *(rounded(v) for v in (p.flops, p.flops_std, p.accuracy, p.spread))]
            for p in points
        ],
    }
    return Figure("Accuracy against cost", caption, (drawn.svg,), data=data,
                  section="Accuracy against cost", runs=title)  # fmt: skip


def _label(point: Point) -> str:
    return ", ".join(part for part in (point.method, point.note) if part)


def trade_offs(records: Sequence[Record], *, several_of: str | None = None) -> list[Figure]:
    """Draws accuracy over FLOPs, a figure for each depth and length that two methods share.

    Args:
        records: records of any experiments.
        several_of: draw only figures with at least two points of this method.
    """
    settings: dict[tuple, list[Point]] = {}
    for group in group_records(records):
        first = group.records[0]
        config = first.config
        halting = config.get("halting", {})
        # Networks of another size have separate
        if group.preset == "smoke" or halting.get("units") or halting.get("width"):
            continue
        for pattern, name, colour in _METHODS:
            named = pattern.fullmatch(config.get("model", {}).get("name", ""))
            if named is None or not group.values("flops"):
                continue
            tau = halting.get("tau")
            note = "" if tau is None else f"tau {tau:g}"
            if config.get("baseline") is not None:
                units = [group.values(f"units.block{i}") for i in range(1, 5)]
                note = "/".join(f"{v[0]:g}" for v in units if v) + " units"
            key = (
                named[1],
                first.steps,
                config["data"]["batch_size"],
                first.dataset["fingerprint"],
            )
            point = point_of(group, name, note, colour)
            settings.setdefault(key, []).append(point)
    return [
        trade_off(
            f"ResNet-{depth}, {steps:,} steps of {batch} images",
            points,
            remark=": all methods have the same training recipe.",
        )
        for (depth, steps, batch, _), points in sorted(settings.items(), key=lambda s: -s[0][1])
        if len(points) > 1
        and (several_of is None or sum(p.method == several_of for p in points) > 1)
    ]


def tuned_trade_offs(
    records: Sequence[Record], *, published: Mapping[str, Sequence[Point]] | None = None
) -> list[Figure]:
    """Draws accuracy over FLOPs of networks tuned from trained weights, for each plain network.

    Args:
        records: records of any experiments.
        published: plain network -> points of a paper, drawn beside.
    """
    settings: dict[tuple, list[Point]] = {}
    changes: dict[tuple, dict[str, None]] = {}
    plain: dict[str, Point] = {}
    for group in group_records(records):
        first = group.records[0]
        halting = first.config.get("halting", {})
        if group.preset == "smoke" or not group.values("plain_flops"):
            continue
        name = first.config["model"]["name"]
        plain.setdefault(
            name,
            point_of(
                group, f"plain {_title_of(name)}", "", LIGHT["dense"], accuracy="plain_accuracy"
            ),
        )
        method, colour = _TUNED[halting.get("rule", "").upper() or "PACT"]
        key = name, first.steps, first.config["data"]["batch_size"], first.dataset["fingerprint"]
        changes.setdefault(key, {})[group.row_text] = None
        for tau in halting.get("taus", ()):
            settings.setdefault(key, []).append(
                point_of(group, method, f"tau {tau:g}", colour, suffix=f".tau{tau:g}")
            )
    drawn = []
    for key, points in settings.items():
        name, steps, batch, _ = key
        figure = trade_off(
            f"{_title_of(name)}, tuned for {steps:,} steps of {batch} images",
            [*plain.values(), *points, *(published or {}).get(name, ())],
            remark=", from the same trained weights.",
        )
        drawn.append(dataclasses.replace(figure, runs=figure.runs + "".join(changes[key])))
    return drawn


def _title_of(name: str) -> str:
    found = re.match(r"resnet(?:v\d_)?(\d+)", name)
    return f"ResNet-{found[1]}" if found else name
