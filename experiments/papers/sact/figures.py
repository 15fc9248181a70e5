"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from experiments.papers.sact.configs import EXPERIMENTS
from experiments.report.charts import LIGHT, Figure, Missing, with_background
from experiments.shared.adaptive_depth.budget_tables import budget_figures, budget_picture
from experiments.shared.adaptive_depth.paper_figures import (
    ADAPTIVE_FIGURES,
    experiment_figures,
    tuned_figures,
)
from experiments.shared.adaptive_depth.trade_offs import Point, trade_offs, tuned_trade_offs
from experiments.suite.records import Record
from experiments.suite.registry import load_paper


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: Records of any experiments; the trade-off shows every method on the same networks.

    Returns:
        Figures in the order of the page, grouped by section.
    """
    drawn: list[Figure | Missing] = [
        *tuned_trade_offs(records, published=_published()),
        *trade_offs(records),
    ]
    drawn += budget_figures(records, prefix="sact.budget.", method="SACT")
    for experiment in EXPERIMENTS:
        if ".tuned." in experiment.id:
            drawn += tuned_figures(experiment, records)
        elif not any(kind in experiment.id for kind in (".baseline.", ".budget.")):
            drawn += experiment_figures(experiment, records, ADAPTIVE_FIGURES)
    return drawn


def _published() -> dict[str, list[Point]]:
    """Returns the points of the authors' released networks, by plain network of the same depth."""
    row = load_paper("sact").rows["cifar10.r32-sact-tau1e-2"].values
    accuracy, flops, deviation = (
        float(row[name]) for name in ("test_accuracy", "flops", "flops_std")
    )
    point = Point(
        "authors' SACT, pre-activation", "tau 0.01", LIGHT["muted"], flops, deviation, accuracy
    )
    return {"resnet32_cifar10": [point]}


def _trained(records: Sequence[Record]) -> str:
    """Draws the trade-off of ResNet-32 for documents."""
    found = [f for f in tuned_trade_offs(records, published=_published()) if "ResNet-32" in f.runs]
    return with_background(found[0].svg[0]) if found else ""


PICTURES = {
    "sact-trained-weights.svg": _trained,
    "sact-budget.svg": functools.partial(budget_picture, prefix="sact.budget."),
}
