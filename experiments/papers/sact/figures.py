"""Figures of networks of adaptive depth: which there are, and what the others lack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from experiments.papers.sact.configs import EXPERIMENTS
from experiments.report.charts import LIGHT, Figure, Missing
from experiments.shared.adaptive_depth import figures as figures_depth
from experiments.suite.comparison import Group, group_records
from experiments.suite.experiment import Experiment
from experiments.suite.records import Record

ADAPTIVE_FIGURES: tuple[Callable[[Group], Figure | None], ...] = (
    figures_depth.ponder_maps,
    figures_depth.learning_curves,
    figures_depth.halting_histograms,
    figures_depth.unit_usage,
)


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Every figure that the records allow, and what is missing for the others.

    Args:
        records: of any experiments; those of PACT too are drawn into the trade-off.

    Returns:
        In the order of the page, grouped by section.
    """
    drawn: list[Figure | Missing] = list(trade_offs(records))
    for experiment in EXPERIMENTS:
        if ".baseline." not in experiment.id:
            drawn += experiment_figures(experiment, records, ADAPTIVE_FIGURES)
    return drawn


def experiment_figures(
    experiment: Experiment,
    records: Sequence[Record],
    makers: Sequence[Callable[[Group], Figure | None]],
) -> list[Figure | Missing]:
    """The figures of one experiment's largest runs in front, those of others folded."""
    groups = groups_without_smoke([r for r in records if r.experiment == experiment.id])
    if not groups:
        command = f"adaptive-nets run {experiment.id} --preset quick"
        return [Missing("No figures yet: there is no record", (command,), experiment.title)]
    drawn: list[Figure | Missing] = []
    for i, group in enumerate(groups):
        drawn += [
            dataclasses.replace(
                figure, section=experiment.title, runs=group.describe(), folded=i > 0
            )
            for figure in (maker(group) for maker in makers)
            if figure is not None
        ]
    return drawn


def groups_without_smoke(records: Sequence[Record]) -> list[Group]:
    """Groups of records, the longest runs first; smoke runs only where there is nothing else."""
    groups = group_records(records)
    kept = [g for g in groups if g.preset != "smoke"] or groups
    return sorted(
        kept, key=lambda g: -g.records[0].steps * g.records[0].config["data"]["batch_size"]
    )


_METHODS = (
    ("sact.baseline.", "plain", LIGHT["dense"]),
    ("sact.table1.", "SACT", LIGHT["sparse"]),
    ("sact.table1.", "ACT", LIGHT["layer1"]),
    ("pact.table1.", "PACT, thresholded", LIGHT["layer4"]),
)


def _method(experiment: str) -> tuple[str, str] | None:
    """Name and colour of the method that an experiment trains; None for other experiments."""
    for prefix, name, colour in _METHODS:
        if not experiment.startswith(prefix):
            continue
        if prefix == "sact.table1." and f"-{name.lower()}-" not in experiment:
            continue
        return name, colour
    return None


def trade_offs(records: Sequence[Record]) -> list[Figure]:
    """Accuracy over FLOPs: a figure for each network and length of training with two methods."""
    settings: dict[tuple, list[figures_depth.Point]] = {}
    for group in group_records(records):
        first = group.records[0]
        method = _method(first.experiment)
        if method is None or group.preset == "smoke":
            continue
        depth = "110" if "110" in first.experiment else "32"
        config = first.config
        length = (depth, first.steps, config["data"]["batch_size"], first.dataset["fingerprint"])
        tau = config.get("halting", {}).get("tau")
        name = method[0] if tau is None else f"{method[0]}, tau {tau:g}"
        settings.setdefault(length, []).append(figures_depth.Point(name, method[1], group))
    made = []
    for (depth, steps, batch, _), points in sorted(settings.items(), key=lambda s: -s[0][1]):
        if len(points) > 1:
            title = f"ResNet-{depth}, {steps:,} steps of {batch} images"
            made.append(figures_depth.trade_off(title, points))
    return made
