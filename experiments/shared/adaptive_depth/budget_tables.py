"""Table and picture of one network at any budget, rendered from records."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from experiments.report.charts import LIGHT, Figure, panel, with_background
from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

_SHARE = re.compile(r"test_accuracy\.budget([\d.]+)")
_SEPARATE = re.compile(r"gap\.(separate\d+)")


def _groups(records: Sequence[Record], prefix: str) -> list[Group]:
    return [g for g in group_records(records) if g.records[0].experiment.startswith(prefix)]


def budget_table(records: Sequence[Record], *, prefix: str) -> str:
    """Formats accuracy and cost at each budget, and beside networks of one τ.

    Args:
        records: records of any experiments.
        prefix: beginning of the ids of the table.
    """
    rows = []
    for group in _groups(records, prefix):
        names, network = group.records[0].metrics, _network(group)
        tuned = [m[1] for name in names if (m := _SEPARATE.fullmatch(name))]
        for share in [m[1] for name in names if (m := _SHARE.fullmatch(name))]:
            label = f"budget{share}"
            cost = _value(group, f"flops_share.{label}")
            ours = _value(group, f"test_accuracy.{label}")
            nearest = _nearest(group, tuned, cost)
            rows.append(
                (
                    network,
                    f"{100 * float(share):.0f} %",
                    f"{cost:.1f}",
                    f"{_value(group, f'budget_error.{label}'):+.2f}",
                    f"{ours:.2f}",
                    *_beside(group, nearest, ours),
                    _runs(group),
                )
            )
        for label in tuned:
            ours = _value(group, f"accuracy_at.{label}")
            cost = f"{_value(group, f'flops_share.{label}'):.1f}"
            beside = _beside(group, label, ours)
            rows.append((network, "as τ", cost, "", f"{ours:.2f}", *beside, _runs(group)))
    if not rows:
        return f"Not measured: `adaptive-nets run {prefix}resnet32 --weights RUN`.\n"
    header = (
        "one network", "budget", "cost, % of the plain FLOPs", "off the budget, %",
        "test accuracy, %", "of the nearest network tuned for one τ, %", "its cost, %",
        "difference, points", "runs",
    )  # fmt: skip
    return render.markdown_table(header, rows, (1, 2, 3, 4, 5, 6, 7))


def _runs(group: Group) -> str:
    """Formats preset and seeds; the networks of the other columns say the rest."""
    count = len(group.records)
    return f"preset {group.preset}, {count} seed{'s' if count > 1 else ''}"


def _nearest(group: Group, tuned: Sequence[str], cost: float) -> str:
    """Returns which of the networks tuned for one τ is nearest in FLOPs; "" if there is none."""
    distances = {label: abs(_value(group, f"flops_share.{label}") - cost) for label in tuned}
    return min(distances, key=distances.__getitem__, default="")


def _beside(group: Group, label: str, ours: float) -> tuple[str, str, str]:
    """Returns accuracy and cost of a network tuned for one τ, and how much better the one is."""
    if not label:
        return "", "", ""
    theirs = _value(group, f"test_accuracy.{label}")
    return f"{theirs:.2f}", f"{_value(group, f'flops_share.{label}'):.1f}", f"{ours - theirs:+.2f}"


def _network(group: Group) -> str:
    """Says how the one network was tuned: by the experiment, if the file lies in its run."""
    if _is_separate(group):
        return "tuned for one τ"
    origins = [found.get("experiment") for found in group.records[0].inputs]
    return f"`{origins[0]}`" if origins and origins[0] else "tuned for all budgets"


def _is_separate(group: Group) -> bool:
    """Returns whether the one network is one of those that were tuned for one τ."""
    config = group.records[0].config
    return config["weights"] in config["separate"]


def _value(group: Group, name: str) -> float:
    return float(np.mean(group.values(name)))


def budget_figures(records: Sequence[Record], *, prefix: str, method: str) -> list[Figure]:
    """Draws accuracy over cost of each network, and the networks of one τ as points."""
    groups = _measured_groups(records, prefix)
    if not groups:
        return []
    return [
        Figure(
            title=f"{method}: one network at any budget",
            caption="Accuracy over cost of one set of weights, whose halting logits are shifted at "
            "run time; points are networks that were tuned for one τ each.",
            svg=(_curves(groups),),
            data={
                "columns": ["network", "FLOPs, % of plain", "accuracy, %"],
                "rows": [
                    [_label(group), float(cost), float(accuracy)]
                    for group in groups
                    for cost, accuracy in zip(*_points(group), strict=True)
                ],
            },
            section="One network, any budget",
            runs="; ".join(group.describe() for group in groups),
        )
    ]


def budget_picture(records: Sequence[Record], *, prefix: str) -> str:
    """Draws the curve of each network for documents; "" without any."""
    groups = _measured_groups(records, prefix)
    return with_background(_curves(groups)) if groups else ""


def _measured_groups(records: Sequence[Record], prefix: str) -> list[Group]:
    return [g for g in _groups(records, prefix) if "accuracy" in g.records[0].arrays()]


def _label(group: Group) -> str:
    return _network(group).strip("`")


def _points(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Returns costs in % and accuracies in %, by cost."""
    arrays = group.records[0].arrays()
    order = np.argsort(arrays["flops_share"])
    return arrays["flops_share"][order], arrays["accuracy"][order]


def _curves(groups: Sequence[Group]) -> str:
    colours = itertools.cycle([LIGHT["sparse"], LIGHT["layer1"], LIGHT["layer2"], LIGHT["layer3"]])
    with panel("test accuracy, %", size=(480, 300)) as drawn:
        axes = drawn.axes
        separate: dict[float, float] = {}
        for group, colour in zip(groups, colours, strict=False):
            axes.plot(*_points(group), marker="o", color=colour, label=_label(group))
            arrays = group.records[0].arrays()
            pairs = zip(arrays["separate_flops_share"], arrays["separate_accuracy"], strict=True)
            separate |= {float(share): float(accuracy) for share, accuracy in pairs}
        if separate:
            axes.plot(
                list(separate), list(separate.values()), "s", color=LIGHT["layer4"], zorder=3,
                label="networks tuned for one τ each",
            )  # fmt: skip
        axes.set_xlabel("FLOPs, % of the plain network")
        axes.legend(loc="lower right")
    return drawn.svg
