"""Figures of a paper on networks of adaptive depth, drawn from records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from experiments.report.charts import Figure, Missing
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


def tuned_figures(experiment: Experiment, records: Sequence[Record]) -> list[Figure | Missing]:
    """Returns the figures of networks tuned from trained weights; later τ are folded."""
    groups = groups_without_smoke([r for r in records if r.experiment == experiment.id])
    if not groups:
        command = f"adaptive-nets run {experiment.id} --preset day --halting.start-from FILE"
        return [Missing("No figures yet: there is no record", (command,), experiment.title)]
    drawn: list[Figure | Missing] = []
    for i, group in enumerate(groups):
        for j, tau in enumerate(group.records[0].config["halting"]["taus"]):
            for maker in (figures.ponder_maps, figures.halting_histograms, figures.unit_usage):
                figure = maker(group, suffix=f".tau{tau:g}")
                if figure is not None:
                    drawn.append(
                        dataclasses.replace(
                            figure, title=f"{figure.title}, tau {tau:g}",
                            section=experiment.title, runs=group.describe(), folded=i + j > 0,
                        )
                    )  # fmt: skip
    return drawn
