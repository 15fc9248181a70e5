"""Tables of the paper, rendered from records for documents."""

from __future__ import annotations

import functools

from experiments.shared.adaptive_depth.budget_tables import budget_table
from experiments.shared.adaptive_depth.tables import (
    cost_table,
    ponder_table,
    saving,
    tuned_table,
)

PARTS = {
    "budgets": functools.partial(budget_table, prefix="sact.budget."),
    "cost": functools.partial(cost_table, prefix="sact."),
    "tuned": functools.partial(tuned_table, prefix="sact.tuned."),
    "ponder": functools.partial(ponder_table, prefix="sact."),
    "saving": functools.partial(
        saving,
        prefix="sact.cifar10.",
        tuned="sact.tuned.resnet32-sact",
        name="**Spatially adaptive computation time** (SACT) skips layers where the image is easy.",
    ),
}
