"""The figures of the paper's experiments: which there are, and what is missing for the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from experiments.papers.sparse_vd.configs import EXPERIMENTS
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
from experiments.report.charts import LIGHT, Figure, Missing
from experiments.report.settings import Role, Setting, settings_of
from experiments.suite.records import Record
from experiments.suite.registry import load_paper

_PAPER, _METHOD, _RANDOM = "sparse_vd", "Sparse VD", "random-labels"

_NETWORK_FIGURES = (
    learning_curves,
    sparsity_over_training,
    sparsity_per_layer,
    threshold_sweep,
    log_alpha_histogram,
    first_layer,
    pixel_weights,
    file_size,
)
_RANDOM_LABEL_FIGURES = (random_labels,)


def figures(records: Sequence[Record]) -> list[Figure | Missing]:
    """Every figure that the records allow, and what is missing for the others.

    Args:
        records: of any experiments.

    Returns:
        In the order of the page, grouped by section; for every network the figures of the largest
        runs first, those of others folded.
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
    return drawn


def _sections() -> list[tuple[str, tuple, Role, Role]]:
    """Per network: heading, figures, the method and what it is compared with."""
    rows = load_paper(_PAPER).rows
    roles: dict[tuple[str, str], dict[bool, Role]] = {}
    for experiment in EXPERIMENTS:
        row = rows[experiment.row]
        ours = row.method == _METHOD
        # The paper calls the plain network "Original", which says little beside a curve.
        label = "dense" if row.method == "Original" else row.method
        role = Role(label, LIGHT["sparse" if ours else "dense"], experiment)
        roles.setdefault((row.table, row.network), {})[ours] = role
    sections = []
    for (table, network), pair in roles.items():
        is_random = pair[True].experiment.row.startswith(_RANDOM)
        heading = f"{table}: {network}" if is_random else network
        makers = _RANDOM_LABEL_FIGURES if is_random else _NETWORK_FIGURES
        sections.append((heading, makers, pair[True], pair[False]))
    return sections


def _missing(section: str, setting: Setting | None, main: Role, beside: Role) -> list[Missing]:
    def command(role: Role, preset: str) -> str:
        return f"adaptive-nets run {role.experiment.id} --preset {preset}"

    if setting is None:
        commands = (command(beside, "quick"), command(main, "quick"))
        return [Missing("No figures yet: neither network has a record", commands, section)]
    preset = setting.size[0]
    if setting.main is None:
        what = f"Figures of {main.label} are left out: it has no record"
        return [Missing(what, (command(main, preset),), section)]
    if setting.beside is None:
        what = f"{beside.label} is left out: it has no record at preset {preset} on the same data"
        return [Missing(what[0].upper() + what[1:], (command(beside, preset),), section)]
    return []


def readme_picture(records: Sequence[Record]) -> str:
    """Returns an SVG document: the sparsity of LeNet-300-100 over training, layer by layer."""
    chosen = [r for r in records if r.experiment.startswith("sparse_vd.table1.lenet-300-100")]
    drawn = (f for f in figures(chosen) if isinstance(f, Figure))
    svg = next(f.svg[0] for f in drawn if f.title == "Sparsity over training")
    # Pages are light and dark; a picture outside of our own page brings its background along.
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return svg.replace("<defs>", f"{background}\n<defs>", 1) + "\n"


PICTURES = {"sparsity-over-training.svg": readme_picture}
