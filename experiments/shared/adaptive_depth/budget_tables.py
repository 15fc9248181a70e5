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
        names = group.records[0].metrics
        for share in [m[1] for name in names if (m := _SHARE.fullmatch(name))]:
            label = f"budget{share}"
            rows.append(
                (
                    f"budget {100 * float(share):.0f} %",
                    f"{_value(group, f'flops_share.{label}'):.1f}",
                    f"{_value(group, f'budget_error.{label}'):+.2f}",
                    f"{_value(group, f'test_accuracy.{label}'):.2f}",
                    "",
                    "",
                    group.describe(),
                )
            )
        for label in [m[1] for name in names if (m := _SEPARATE.fullmatch(name))]:
            rows.append(
                (
                    "that of a network tuned for one τ",
                    f"{_value(group, f'flops_share.{label}'):.1f}",
                    "",
                    f"{_value(group, f'accuracy_at.{label}'):.2f}",
                    f"{_value(group, f'test_accuracy.{label}'):.2f}",
                    f"{_value(group, f'gap.{label}'):+.2f}",
                    group.describe(),
                )
            )
    if not rows:
        return f"Not measured: `adaptive-nets run {prefix}resnet32 --weights RUN`.\n"
    header = (
        "budget", "cost, % of the plain FLOPs", "off the budget, %", "test accuracy, %",
        "of the network tuned for it, %", "difference, points", "runs",
    )  # fmt: skip
    return render.markdown_table(header, rows, (1, 2, 3, 4, 5))


def _value(group: Group, name: str) -> float:
    return float(np.mean(group.values(name)))


def budget_figures(records: Sequence[Record], *, prefix: str, method: str) -> list[Figure]:
    """Draws accuracy over cost of one network, and the networks of one τ as points."""
    return [
        Figure(
            title=f"{method}: one network at any budget",
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
    """Draws the figure of the largest run for documents; "" without a record."""
    found = budget_figures(records, prefix=prefix, method=method)
    return with_background(found[0].svg[0]) if found else ""


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
