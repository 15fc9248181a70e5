"""The figure of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.charts import LIGHT, Figure, Missing, panel
from experiments.suite.records import Record

_PRUNED = "toy.table1.small-pruned"


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Returns the kept weights of every column, or what makes them."""
    chosen = [r for r in records if r.experiment == _PRUNED and "kept" in r.arrays()]
    if not chosen:
        command = f"adaptive-nets run {_PRUNED} --preset quick"
        return [Missing("Kept weights are not drawn: no record", (command,), "Pruning")]
    kept = chosen[0].arrays()["kept"]
    with panel("kept weights") as drawn:
        drawn.axes.plot(range(len(kept)), kept, color=LIGHT["sparse"])
    return [
        Figure(
            "Kept weights",
            "The number of kept weights in every column.",
            svg=(drawn.svg,),
            data={"columns": ["column", "kept"], "rows": [[i, int(k)] for i, k in enumerate(kept)]},
            section="Pruning",
            runs=f"preset {chosen[0].preset}",
        )
    ]
