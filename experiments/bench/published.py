"""Published records of benchmarks."""

from __future__ import annotations

import json
from typing import Any

from experiments.suite.records import PUBLISHED

BENCHMARKS = PUBLISHED / "bench"


def published(name: str) -> dict[str, Any]:
    """Returns the record of a benchmark, as `write_measured` wrote it."""
    return json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))
