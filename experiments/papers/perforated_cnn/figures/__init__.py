"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from experiments.papers.perforated_cnn.configs import EXPERIMENTS
from experiments.papers.perforated_cnn.figures.curves import (
    single_layer,
    tradeoff,
    whole_networks,
)
from experiments.papers.perforated_cnn.figures.search import impact_maps, masks, search_path, tuning
from experiments.report.charts import Figure, Missing
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record

_SEARCHED = "perforated_cnn.table3.nin"
_SINGLE_LAYER = "perforated_cnn.figure.single-layer"
_RESNET = "perforated_cnn.resnet.resnet32"
_RESNET_LAYER = "perforated_cnn.resnet.layer"
_TRADEOFF = "perforated_cnn.figure.nin-tradeoff"
_RULED = ("perforated_cnn.table3.alexnet", "perforated_cnn.table3.vgg16")


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: Records of any experiments.

    Returns:
        Figures, and notes on missing ones, in the order of the page, grouped by section. The
        largest runs come first; others are folded.
    """
    drawn: list[Figure | Missing] = []
    drawn += _joint_figures("One layer, four kinds of masks", _SINGLE_LAYER, single_layer, records)
    drawn += _joint_figures("One layer of ResNet-32", _RESNET_LAYER, single_layer, records)
    drawn += _one_by_one("NIN: perforation, stride, smaller input", _TRADEOFF, (tradeoff,), records)
    for experiment in EXPERIMENTS:
        searched = experiment.id.startswith(_SEARCHED) and "-cpu-" in experiment.id
        if searched or experiment.id.startswith(_RESNET):
            section = f"Search: {experiment.title}"
            makers = (search_path, masks, impact_maps, tuning)
            drawn += _one_by_one(section, experiment.id, makers, records)
    section = "AlexNet and VGG-16: measured speed-up"
    of_whole = [g for prefix in _RULED for g in _groups(prefix, records) if not g.row_changes]
    figure = whole_networks(of_whole) if of_whole else None
    if figure is not None:
        drawn.append(dataclasses.replace(figure, section=section))
    else:
        drawn.append(
            _missing(
                "No figure: no run of a whole network has a record", f"{_RULED[0]}-cpu-2x", section
            )
        )
    return drawn


def _groups(prefix: str, records: Sequence[Record]) -> list[Group]:
    """Groups the records below an id prefix; includes smoke runs only if there are no others."""
    found = group_records([r for r in records if r.experiment.startswith(prefix)])
    return [group for group in found if group.preset != "smoke"] or found


def _one_by_one(
    section: str,
    prefix: str,
    makers: Sequence[Callable[[Group], Figure | None]],
    records: Sequence[Record],
) -> list[Figure | Missing]:
    groups = _groups(prefix, records)
    drawn: list[Figure | Missing] = [
        dataclasses.replace(figure, section=section, runs=group.describe(), folded=i > 0)
        for i, group in enumerate(groups)
        for maker in makers
        if (figure := maker(group)) is not None
    ]
    return drawn or [_missing("No figures: no run has a record", prefix, section)]


def _joint_figures(
    section: str,
    prefix: str,
    maker: Callable[[Sequence[Group]], Figure | None],
    records: Sequence[Record],
) -> list[Figure | Missing]:
    """Draws one figure over several experiments for each size of runs."""
    sizes: dict[tuple[str, str], list[Group]] = {}
    found = _groups(prefix, records)
    for group in [g for g in found if not g.row_changes] or found:
        key = (group.preset, group.records[0].dataset["fingerprint"])
        sizes.setdefault(key, []).append(group)
    drawn: list[Figure | Missing] = []
    for i, groups in enumerate(sizes.values()):
        figure = maker(groups)
        if figure is not None:
            runs = groups[0].describe()
            drawn.append(dataclasses.replace(figure, section=section, runs=runs, folded=i > 0))
    if drawn:
        return drawn
    return [_missing("No figures: no run has a record", f"{prefix}-impact", section)]


def _missing(what: str, experiment: str, section: str) -> Missing:
    train = "adaptive-nets run perforated_cnn.table1.nin --preset quick --out runs/nin"
    command = f"adaptive-nets run {experiment} --preset quick"
    if experiment.startswith(_RULED):
        return Missing(what, (command,), section)
    if experiment.startswith((_RESNET, _RESNET_LAYER)):
        return Missing(what, (f"{command} --perforation.source FILE",), section)
    return Missing(what, (train, f"{command} --perforation.source runs/nin"), section)
