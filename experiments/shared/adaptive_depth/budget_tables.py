"""Table and picture of one network at any budget, rendered from records."""

from __future__ import annotations

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
    """Says how the one network was tuned: like the others beside it if it is one of them."""
    config = group.records[0].config
    return "tuned for one τ" if config["weights"] in config["separate"] else "tuned for all budgets"


def _value(group: Group, name: str) -> float:
    return float(np.mean(group.values(name)))


def budget_figures(records: Sequence[Record], *, prefix: str, method: str) -> list[Figure]:
    """Draws accuracy over cost of one network, and the networks of one τ as points."""
    return [
        Figure(
            title=f"{method}: one network at any budget, {_network(group)}",
            caption="Accuracy over cost of one set of weights, whose halting logits are shifted at "
            "run time; points are networks that were tuned for one τ each.",
            svg=(_curve(group, method),),
            data={
                "columns": ["FLOPs, % of plain", "accuracy, %"],
                "rows": [list(map(float, row)) for row in _points(group)],
            },
            section="One network, any budget",
            runs=group.describe(),
        )
        for group in _groups(records, prefix)
        if "accuracy" in group.records[0].arrays()
    ]


def budget_picture(records: Sequence[Record], *, prefix: str, method: str) -> str:
    """Draws one network, tuned for all budgets if there is one, for documents; "" without any."""
    groups = [g for g in _groups(records, prefix) if "accuracy" in g.records[0].arrays()]
    # Stable, so the one with the most records among equals stays first.
    groups.sort(key=lambda group: _network(group) != "tuned for all budgets")
    return with_background(_curve(groups[0], method)) if groups else ""


def _points(group: Group) -> np.ndarray:
    arrays = group.records[0].arrays()
    return np.stack([arrays["flops_share"], arrays["accuracy"]], axis=1)


def _curve(group: Group, method: str) -> str:
    arrays = group.records[0].arrays()
    order = np.argsort(arrays["flops_share"])
    with panel("test accuracy, %", size=(480, 300)) as drawn:
        axes = drawn.axes
        axes.plot(
            arrays["flops_share"][order], arrays["accuracy"][order], marker="o",
            color=LIGHT["sparse"], label=f"{method}, one network",
        )  # fmt: skip
        if len(arrays["separate_accuracy"]):
            axes.plot(
                arrays["separate_flops_share"], arrays["separate_accuracy"], "s",
                color=LIGHT["layer4"], label="tuned for one τ each",
            )  # fmt: skip
        axes.set_xlabel("FLOPs, % of the plain network")
        axes.legend(loc="lower right")
    return drawn.svg
