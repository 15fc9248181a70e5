"""Figures of the paper's experiments, and a note for each that lacks records."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from experiments.papers.sparse_vd.configs import EXPERIMENTS
from experiments.papers.sparse_vd.configs.vgg import SETS
from experiments.papers.sparse_vd.figures import forms
from experiments.papers.sparse_vd.figures.network import (
    file_size,
    first_layer,
    log_alpha_histogram,
    pixel_weights,
    sparsity_per_layer,
    threshold_sweep,
)
from experiments.papers.sparse_vd.figures.training import (
    learning_curves,
    random_labels,
    sparsity_over_training,
)
from experiments.papers.sparse_vd.figures.widths import over_widths
from experiments.papers.sparse_vd.recorded_noise import PANELS, SHOWN
from experiments.report.charts import LIGHT, Figure, Missing, with_background
from experiments.report.settings import Role, Setting, settings_of
from experiments.suite.records import Record
from experiments.suite.registry import load_paper

_PAPER, _METHOD, _RANDOM = "sparse_vd", "Sparse VD", "random-labels"
_ADDITIVE = "additive"
_NETWORK_TABLES = ("Table 1", "VGG-like, CIFAR")

_NETWORK_FIGURES = (
    learning_curves,
    sparsity_over_training,
    sparsity_per_layer,
    threshold_sweep,
    log_alpha_histogram,
    forms.gradient_noise,
    first_layer,
    pixel_weights,
    file_size,
)
_RANDOM_LABEL_FIGURES = (random_labels,)


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Draws every figure that the records allow.

    Args:
        records: Records of any experiments.

    Returns:
        Figures, and notes on missing ones, in the order of the page, grouped by section. For every
        network the figures of the largest runs come first; those of other runs are folded.
    """
    drawn: list[Figure | Missing] = []
    for section, makers, main, beside in _sections():
        settings = settings_of(main, beside, records)
        for i, setting in enumerate(settings):
            drawn += [
                dataclasses.replace(figure, section=section, runs=setting.describe(), folded=i > 0)
                for figure in (maker(setting) for maker in makers)
                if figure is not None
            ]
        drawn += _missing(section, settings[0] if settings else None, main, beside)
    drawn += [figure for data in SETS if (figure := over_widths(data, records)) is not None]
    return drawn


def _sections() -> list[tuple[str, tuple, Role, Role]]:
    """Returns the heading, the figures, the method and the baseline of each network."""
    rows = load_paper(_PAPER).rows
    roles: dict[tuple[str, str], dict[bool, Role]] = {}
    for experiment in EXPERIMENTS:
        row = rows[experiment.row]
        ours = row.method in (_METHOD, _ADDITIVE)
        # The paper calls the plain network "Original", which is unclear beside a curve.
        label = "dense" if row.method == "Original" else row.method
        role = Role(label, LIGHT["sparse" if ours else "dense"], experiment)
        roles.setdefault((row.table, row.network), {})[ours] = role
    sections = []
    for (table, network), pair in roles.items():
        if set(pair) != {True, False}:
            continue
        is_random = pair[True].experiment.row.startswith(_RANDOM)
        heading = network if table in _NETWORK_TABLES else f"{table}: {network}"
        makers = _RANDOM_LABEL_FIGURES if is_random else _NETWORK_FIGURES
        sections.append((heading, makers, pair[True], pair[False]))
    return sections


def _missing(section: str, setting: Setting | None, main: Role, beside: Role) -> list[Missing]:
    def command(role: Role, preset: str) -> str:
        return f"adaptive-nets run {role.experiment.id} --preset {preset}"

    if setting is None:
        commands = (command(beside, "quick"), command(main, "quick"))
        return [Missing("No figures: neither network has a record", commands, section)]
    preset = setting.size[0]
    if setting.main is None:
        what = f"Figures of {main.label} are missing: it has no record"
        return [Missing(what, (command(main, preset),), section)]
    if setting.beside is None:
        what = f"{beside.label} is missing: it has no record at preset {preset} on the same data"
        return [Missing(what[0].upper() + what[1:], (command(beside, preset),), section)]
    return []


def readme_picture(records: Sequence[Record]) -> str:
    """Returns an SVG document of the sparsity of LeNet-300-100 over training, by layer."""
    chosen = [r for r in records if r.experiment.startswith("sparse_vd.table1.lenet-300-100")]
    drawn = (f for f in figures(chosen) if isinstance(f, Figure))
    return with_background(next(f.svg[0] for f in drawn if f.title == "Sparsity over training"))


def _noise_picture(panel: int, records: Sequence[Record]) -> str:
    """Returns a panel of the gradient noise of LeNet-300-100; "" without records of it."""
    chosen = [r for r in records if r.experiment.startswith(SHOWN)]
    drawn = (f for f in figures(chosen) if isinstance(f, Figure) and f.title == forms.TITLE)
    return next((with_background(f.svg[panel]) for f in drawn), "")


PICTURES = {
    "sparsity-over-training.svg": readme_picture,
    **{name: functools.partial(_noise_picture, i) for i, name in enumerate(PANELS)},
}
