"""Tables of saliency, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.papers.sact_saliency.measures import MEASURES, METHODS
from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

PREFIX = "sact.saliency."
MAPS = "sact-saliency-maps.svg"
"""Picture of photographs, human maps and ponder maps."""
_NONE = "Not measured: there is no record.\n"
_DIGITS = {"auc_judd": 1, "auc_shuffled": 1, "nss": 2, "cc": 3, "sim": 3, "kl": 3}


def groups_of(records: Sequence[Record]) -> list[Group]:
    """Returns the groups of runs of this folder, without smoke runs."""
    chosen = [r for r in records if r.experiment.startswith(PREFIX)]
    return [group for group in group_records(chosen) if group.preset != "smoke"]


def methods_table(records: Sequence[Record]) -> str:
    """Renders all measures of the centre baseline, the ponder map, and both together."""
    rows = []
    for group in groups_of(records):
        first = f"`{group.records[0].experiment}`, {describe(group)}"
        for method, title in METHODS.items():
            if not group.values(f"auc_judd.{method}"):
                continue
            cells = [_cell(group, name, method) for name in MEASURES]
            rows.append((first, title, *cells))
            first = ""
    if not rows:
        return _NONE
    header = (
        "runs", "saliency map",
        *(title if unit in ("share", "correlation") else f"{title}, {unit}"
          for title, unit in MEASURES.values()),
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


def answer(records: Sequence[Record]) -> str:
    """States for each run whether the ponder map adds to the centre baseline."""
    lines = []
    for group in groups_of(records):
        if not group.values("gain.both"):
            continue
        lines.append(f"- `{group.records[0].experiment}`, {describe(group)}: {sentence(group)}")
    return "\n".join(lines) + "\n" if lines else _NONE


def sentence(group: Group) -> str:
    """Says whether the ponder map with the centre is better than the centre alone."""
    gain, deviation, error = (
        _mean(group, f"{name}.both") for name in ("gain", "gain_std", "gain_error")
    )
    alone = _mean(group, "gain.ponder")
    metric = group.records[0].metric("better.both")
    divisions = metric.count if metric else 1
    better = _mean(group, "better.both")
    # A gain counts if it is above both of its errors, twice.
    sure = abs(gain) > 2 * max(deviation, error)
    verdict = ("yes" if gain > 0 else "no") if sure else "not decided"
    share = _mean(group, "share")
    return (
        f"better than the centre alone: **{verdict}**. Ponder map with centre {gain:+.2f} ± "
        f"{deviation:.2f} points of AUC-Judd over {divisions} divisions (standard error over "
        f"pictures {error:.2f}), above the centre in {better:g} of them; the ponder map alone "
        f"{alone:+.2f} points. The network spends {share:.1f} % of the plain network's FLOPs."
    )


def picture(records: Sequence[Record]) -> str:
    """Renders the picture of photographs and maps, if a run has one."""
    if not any("pictures" in g.records[0].arrays() for g in groups_of(records)):
        return _NONE
    return f"![Photographs, where people looked, and ponder maps](../../results/figures/{MAPS})\n"


def describe(group: Group) -> str:
    """Formats preset, pictures and changed flags of a run."""
    derived = _mean(group, "derived")
    note = f", {derived:.0f} % with derived fixations" if derived else ""
    return f"{group.describe().replace(', 0 steps', '')}{note}"


def _mean(group: Group, name: str) -> float:
    values = group.values(name)
    return sum(values) / len(values) if values else 0.0


def _cell(group: Group, name: str, method: str) -> str:
    values = group.values(f"{name}.{method}")
    if not values:
        return "–"
    digits = _DIGITS[name]
    deviation = _mean(group, f"{name}_std.{method}")
    return f"{_mean(group, f'{name}.{method}'):.{digits}f} ± {deviation:.{digits}f}"


PARTS = {"methods": methods_table, "answer": answer, "picture": picture}
