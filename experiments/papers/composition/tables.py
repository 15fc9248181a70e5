"""Tables of the comparison, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation

NETWORKS = {
    "plain": "plain",
    "sparse": "sparse variational dropout",
    "adaptive": "SACT",
    "both": "both",
}
_KINDS = ("", "crops_", "policy_")


def methods_table(records: Sequence[Record]) -> str:
    """Renders what each method saves and costs, alone and together, one line per network."""
    rows = []
    for group in composition_groups(records):
        views = group.records[0].config["views"]["counts"][-1]
        for label, text in NETWORKS.items():
            costs = [
                cell(group, f"{name}.{label}", digits=1)
                for name in ("weights_kept", "flops_share", "kept_flops_share")
            ]
            errors = [cell(group, f"{kind}error.{label}", digits=2) for kind in _KINDS]
            scores = [cell(group, f"{kind}calibrated_ll.{label}", digits=4) for kind in _KINDS]
            rows.append((text, *costs, str(views), *errors, *scores, group.describe()))
    if not rows:
        return "Not measured: there is no record.\n"
    header = (
        "network", "weights kept, %", "FLOPs, % of plain", "of kept weights, %", "views",
        "error, %, image itself", "crops and flips", "policy",
        "calibrated log-likelihood, nats, image itself", "crops and flips", "policy", "runs",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(1, len(header) - 1)))


def composition_groups(records: Sequence[Record]) -> list[Group]:
    """Returns the groups of the comparison, without smoke runs."""
    chosen = [r for r in records if r.experiment.startswith("composition.") and r.preset != "smoke"]
    return group_records(chosen)


def cell(group: Group, name: str, *, digits: int) -> str:
    """Formats the mean of a measure, with its deviation over several seeds."""
    values = group.values(name)
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


PARTS = {"methods": methods_table}
