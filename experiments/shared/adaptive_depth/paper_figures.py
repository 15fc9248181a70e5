"""Figures of a paper on networks of adaptive depth, drawn from records."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from experiments.report.charts import LIGHT, Figure, Missing
from experiments.shared.adaptive_depth import figures
from experiments.suite.experiment import Experiment
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

ADAPTIVE_FIGURES: tuple[Callable[[Group], Figure | None], ...] = (
    figures.ponder_maps,
    figures.learning_curves,
    figures.halting_histograms,
    figures.unit_usage,
)

PACT = "PACT, thresholded"
"""Method of probabilistic networks in a trade-off."""

# Pattern of model names, label and colour of each method in a trade-off.
_METHODS = (
    (re.compile(r"resnetv2_(\d+)(?:_cifar10)?"), "plain", LIGHT["dense"]),
    (re.compile(r"resnet(\d+)_sact(?:_cifar10)?"), "SACT", LIGHT["sparse"]),
    (re.compile(r"resnet(\d+)_act(?:_cifar10)?"), "ACT", LIGHT["layer1"]),
    (re.compile(r"resnet(\d+)_pact(?:_cifar10)?"), PACT, LIGHT["layer4"]),
)


def experiment_figures(
    experiment: Experiment,
    records: Sequence[Record],
    makers: Sequence[Callable[[Group], Figure | None]],
) -> list[Figure | Missing]:
    """Returns the figures of one experiment: those of the first runs, the others folded."""
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
    """Returns groups of records in the order of tables; smoke runs only if there are no others."""
    groups = group_records(records)
    return [g for g in groups if g.preset != "smoke"] or groups


def trade_offs(records: Sequence[Record], *, several_of: str | None = None) -> list[Figure]:
    """Draws accuracy over FLOPs, a figure for each depth and length that two methods share.

    Args:
        records: records of any experiments.
        several_of: draw only figures with at least two points of this method.
    """
    settings: dict[tuple, list[figures.Point]] = {}
    for group in group_records(records):
        first = group.records[0]
        config = first.config
        halting = config.get("halting", {})
        # Networks of another size have separate figures.
        if group.preset == "smoke" or halting.get("units") or halting.get("width"):
            continue
        for pattern, name, colour in _METHODS:
            named = pattern.fullmatch(config.get("model", {}).get("name", ""))
            if named is None or not group.values("flops"):
                continue
            tau = halting.get("tau")
            note = "" if tau is None else f"tau {tau:g}"
            if config.get("baseline") is not None:
                units = [group.values(f"units.block{i}") for i in range(1, 5)]
                note = "/".join(f"{v[0]:g}" for v in units if v) + " units"
            key = (
                named[1],
                first.steps,
                config["data"]["batch_size"],
                first.dataset["fingerprint"],
            )
            settings.setdefault(key, []).append(figures.Point(name, note, colour, group))
    return [
        figures.trade_off(f"ResNet-{depth}, {steps:,} steps of {batch} images", points)
        for (depth, steps, batch, _), points in sorted(settings.items(), key=lambda s: -s[0][1])
        if len(points) > 1
        and (several_of is None or sum(p.method == several_of for p in points) > 1)
    ]
