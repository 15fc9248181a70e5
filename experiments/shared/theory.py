"""Check that no speed-up exceeds the reduction of multiplications that it comes from.

Skipped multiplications are the only source of the speed-ups measured here, so a larger one is a
sign of a slow baseline. A record that has one must say why, in the note of the metric.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Repeated timings of equal programs on a shared machine differ by up to this factor.
TOLERANCE = 1.05
# Words in the note of a metric that introduce the reason of an exceptional speed-up.
REASON = "above the theoretical speed-up because"

# Speed-up over reduction of multiply-accumulates, and the same in percent.
_RATIO, _PERCENT = re.compile(r"efficiency(_batch\d+)?"), re.compile(r"speed_share")


def above_theory(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Finds unexplained speed-ups above the theoretical ones.

    Args:
        metrics: metrics of a record by name, each with "value" and "note".

    Returns:
        Metric -> measured over theoretical speed-up.
    """
    found = {}
    for name, metric in metrics.items():
        value, note = metric.get("value"), metric.get("note", "")
        scale = 1.0 if _RATIO.fullmatch(name) else 0.01 if _PERCENT.fullmatch(name) else None
        if scale is None or value is None or REASON in note:
            continue
        if value * scale > TOLERANCE:
            found[name] = value * scale
    return found


def explained(metrics: Mapping[str, Mapping[str, Any]], reason: str) -> dict[str, dict[str, Any]]:
    """Returns the metrics with the reason in the note of each speed-up above its theoretical one.

    Args:
        metrics: metrics of a record by name.
        reason: reason, such as "the masks also save the memory traffic of copies".
    """
    notes = {
        name: "; ".join(filter(None, (metrics[name].get("note"), f"{REASON} {reason}")))
        for name in above_theory(metrics)
    }
    return {
        name: {**metric, "note": notes[name]} if name in notes else dict(metric)
        for name, metric in metrics.items()
    }
