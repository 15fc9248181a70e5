"""The table of the paper, for documents."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.suite import render
from experiments.suite.records import Record


def summary_table(records: Sequence[Record]) -> str:
    """Returns one line per record of the paper."""
    rows = [(r.experiment, str(r.seed)) for r in records if r.paper == "toy"]
    return render.markdown_table(("experiment", "seed"), rows)


PARTS = {"summary": summary_table}
