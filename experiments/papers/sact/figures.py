"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.papers.sact.configs import EXPERIMENTS
from experiments.report.charts import Figure, Missing
from experiments.shared.adaptive_depth.paper_figures import (
    ADAPTIVE_FIGURES,
    experiment_figures,
)
from experiments.shared.adaptive_depth.trade_offs import trade_offs
from experiments.suite.records import Record


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: Records of any experiments; the trade-off shows every method on the same networks.

    Returns:
        Figures in the order of the page, grouped by section.
    """
    drawn: list[Figure | Missing] = list(trade_offs(records))
    for experiment in EXPERIMENTS:
        if ".baseline." not in experiment.id:
            drawn += experiment_figures(experiment, records, ADAPTIVE_FIGURES)
    return drawn
