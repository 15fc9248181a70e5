"""Tables of the paper's experiments, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.shared.ensembling.scores import CLL
from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

PREFIX, CORRUPTED = "gps.cifar10.", "gps.corruptions."
_NOT_RUN = "Not run: there is no record.\n"
TITLES = {
    "plain": "none (CC)",
    "crops": "crop and flip (CF)",
    "one_magnitude": "one magnitude (M*)",
    "greedy": "greedy search (GPS)",
    "greedy_released": "greedy search, empty sub-policies cropped",
    "other_plain": "other network: none",
    "other_crops": "other network: crop and flip",
    "other_greedy": "other network: the policies above",
}


def policy_title(name: str, group: Group) -> str:
    """Returns the title of a policy of a record."""
    if name in TITLES:
        return TITLES[name]
    first = group.records[0]
    metric = first.metric(next(key for key in first.metrics if key.startswith(f"{name}.error.")))
    assert metric is not None
    file = metric.note.split(" ")[0]
    return f"given: {file.rpartition('.')[0].removesuffix('-policy')}"


def policy_names(arrays) -> list[str]:
    """Returns the policies of a record in the order of the tables."""
    found = [key.removesuffix("/counts") for key in arrays if key.endswith("/counts")]
    order = [*list(TITLES)[:5], *sorted(n for n in found if n not in TITLES), *list(TITLES)[5:]]
    return [name for name in order if name in found]


def policies_table(records: Sequence[Record]) -> str:
    """Renders calibrated log-likelihood and error of every policy over the number of views."""
    tables = []
    for group in groups_of(records):
        arrays = group.records[0].arrays()
        counts = arrays["greedy/counts"]
        header = ("policy", *(f"CLL, {c}" for c in counts), *(f"error, {c}, %" for c in counts))
        rows = []
        for name in policy_names(arrays):
            there = list(arrays[f"{name}/counts"])
            cells = [
                _cell(arrays[f"{name}/{measure}"][:, there.index(count)], digits)
                if count in there
                else "–"
                for measure, digits in ((CLL, 4), ("error", 2))
                for count in counts
            ]
            rows.append((policy_title(name, group), *cells))
        table = render.markdown_table(header, rows, tuple(range(1, len(header))))
        tables.append(f"`{group.records[0].experiment}`, {group.describe()}\n\n{table}")
    return "\n".join(tables) or _NOT_RUN


def _cell(values: np.ndarray, digits: int) -> str:
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def gains_table(records: Sequence[Record]) -> str:
    """Renders the gain of greedy search over crops and flips, mean and deviation over divisions."""
    rows = []
    counts: list[int] = []
    for group in groups_of(records):
        arrays = group.records[0].arrays()
        found = list(arrays["greedy/counts"])
        if counts and counts != found:
            continue
        counts = found
        for name, base in (("greedy", "crops"), ("other_greedy", "other_crops")):
            if f"{name}/{CLL}" not in arrays:
                continue
            gains = arrays[f"{name}/{CLL}"] - arrays[f"{base}/{CLL}"]
            cells = [
                f"{g.mean():+.4f}" + (f" ± {g.std(ddof=1):.4f}" if len(g) > 1 else "")
                for g in gains.T
            ]
            network = "its network" if name == "greedy" else "the other network"
            rows.append((f"`{group.records[0].experiment}`", group.preset, network, *cells))
    if not rows:
        return _NOT_RUN
    header = ("experiment", "preset", "on", *(f"{count} views" for count in counts))
    return render.markdown_table(header, rows, tuple(range(3, len(header))))


def saving(records: Sequence[Record]) -> str:
    """Returns one line: error and likelihood of a trained network, of crops and of its policy."""
    name = "- **Test-time policies** improve a network that is already trained."
    groups = groups_of(records)
    if not groups:
        return f"{name} Not run.\n"
    first = groups[0].records[0]
    arrays = first.arrays()
    count = int(arrays["greedy/counts"][-1])

    def means(policy: str) -> str:
        error = float(arrays[f"{policy}/error"][:, -1].mean())
        return f"{error:.2f} % error, {float(arrays[f'{policy}/{CLL}'][:, -1].mean()):.3f} nats"

    return (
        f"{name} `{first.config['model']['name']}` on CIFAR-10, calibrated log-likelihood: "
        f"{means('plain')} without augmentation, {means('crops')} with {count} crops and flips, "
        f"{means('greedy')} with the policy of a greedy search.\n"
    )


def corruptions_table(records: Sequence[Record]) -> str:
    """Renders the mean corruption error and log-likelihood of every policy."""
    rows = []
    chosen = [r for r in records if r.experiment.startswith(CORRUPTED)]
    for group in group_records(chosen):
        if group.preset == "smoke" or group.row_changes:
            continue
        for name in group.records[0].metrics:
            policy, measure, count = name.split(".")
            metric = group.records[0].metric(name)
            if measure == "muce" and metric is not None:
                likelihood = group.values(f"{policy}.{CLL}.{count}")[0]
                rows.append(
                    (
                        TITLES[policy], group.describe(), metric.note, count,
                        f"{metric.value:.2f}", f"{likelihood:.4f}",
                    )
                )  # fmt: skip
    if not rows:
        return _NOT_RUN
    header = ("policy", "runs", "corruptions", "views", "muCE, %", "mean CLL")
    order = list(TITLES.values())
    rows.sort(key=lambda row: (row[1], order.index(row[0]), int(row[3])))
    return render.markdown_table(header, rows, (3, 4, 5))


def time_table(records: Sequence[Record]) -> str:
    """Renders the time of the search at each measured size."""
    rows = []
    chosen = [r for r in records if r.experiment == "gps.search.time" and r.preset != "smoke"]
    for group in group_records(chosen):
        metric = group.records[0].metric("search_seconds")
        assert metric is not None
        step = group.values("step_seconds")[0]
        rows.append((metric.note, f"{metric.value:.0f}", f"{step:.2f}"))
    if not rows:
        return _NOT_RUN
    return render.markdown_table(("size", "search, s", "median selection, s"), rows, (1, 2))


def groups_of(records: Sequence[Record]) -> list[Group]:
    """Returns the groups of searches, without smoke runs."""
    chosen = [r for r in records if r.experiment.startswith(PREFIX)]
    return [g for g in group_records(chosen) if g.preset != "smoke" and not g.row_changes]


PARTS = {
    "policies": policies_table,
    "gains": gains_table,
    "corruptions": corruptions_table,
    "saving": saving,
    "time": time_table,
}
