"""Tables of the paper, rendered from records for documents."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from experiments.shared.adaptive_depth.budget_tables import budget_table
from experiments.shared.adaptive_depth.tables import (
    cost_table,
    ponder_table,
    saving,
    text_of,
    tuned_table,
)
from experiments.suite import render
from experiments.suite.groups import group_records
from experiments.suite.records import Record, mean_and_deviation


def estimator_table(records: Sequence[Record], *, prefix: str) -> str:
    """Renders relaxation and REINFORCE by number of latent variables."""
    rows = []
    for group in group_records(records):
        if group.records[0].experiment.startswith(prefix):
            rows.append(
                (
                    f"`{group.records[0].experiment}`",
                    group.describe(),
                    text_of(group, "latents", 0, 1.0, 0),
                    text_of(group, "nll.discrete", 0, 1.0, 3),
                    text_of(group, "test_accuracy", 2),
                )
            )
    rows.sort(key=lambda row: (float(row[2].replace(",", "")), row[0]))
    header = (
        "experiment",
        "runs",
        "latent variables",
        "sampled loss, nats",
        "test accuracy, %",
    )
    return render.markdown_table(header, rows, (2, 3, 4))


def parity_table(records: Sequence[Record]) -> str:
    """Renders the updates per time step by the count of numbers in it."""
    rows, most = [], 0
    for group in group_records(records):
        if group.records[0].experiment.startswith("pact.recurrent."):
            units = []
            while values := group.values(f"units.numbers{len(units) + 1}"):
                units.append(f"{mean_and_deviation(values)[0]:.2f}")
            most = max(most, len(units))
            rows.append(
                (
                    f"`{group.records[0].experiment}`",
                    text_of(group, "test_accuracy", 1),
                    *units,
                    text_of(group, "difficulty_correlation", 0, 1.0, 2),
                )
            )
    header = ("experiment", "correct sequences, %", *(str(k) for k in range(1, most + 1)),
              "correlation")  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(1, len(header))))


def discontinuity_table(records: Sequence[Record]) -> str:
    """Renders the jumps of ACT's ponder cost and the steps of the expected number of units."""
    rows = [
        (
            f"preset {group.preset}",
            f"{group.records[0].config['curve']['points']:,}",
            text_of(group, "jumps", 0, 1.0, 0),
            text_of(group, "largest_jump", 0, 1.0, 3),
            text_of(group, "largest_step_expected", 0, 1.0, 4),
        )
        for group in group_records(records)
        if group.records[0].experiment.startswith("pact.discontinuity.")
    ]
    header = ("runs", "points", "jumps of the ponder cost", "largest jump, units",
              "largest step of E z, units")  # fmt: skip
    return render.markdown_table(header, rows, (1, 2, 3, 4))


PARTS = {
    "budgets": functools.partial(budget_table, prefix="pact.budget."),
    "curve": functools.partial(cost_table, prefix=("pact.curve.", "pact.table1.r32-")),
    "discontinuity": discontinuity_table,
    "cost": functools.partial(cost_table, prefix="pact.table1."),
    "tuned": functools.partial(tuned_table, prefix="pact.tuned."),
    "ponder": functools.partial(ponder_table, prefix="pact.table1."),
    "saving": functools.partial(
        saving,
        prefix="pact.table1.",
        tuned="pact.tuned.resnet32",
        name="**Probabilistic adaptive computation time** learns depth as a latent variable.",
    ),
    "estimators": functools.partial(estimator_table, prefix="pact.figure."),
    "trained": functools.partial(estimator_table, prefix="pact.trained."),
    "parity": parity_table,
}
