"""Selection of the records that a figure compares, and their curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from adaptive_nets.training.duration import Timing
from experiments.suite.experiment import Experiment
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record


@dataclasses.dataclass(frozen=True)
class Role:
    """Experiment with its label and colour in figures.

    Attributes:
        label: Text beside its curves.
        colour: Colour in every figure.
        experiment: The experiment.
    """

    label: str
    colour: str
    experiment: Experiment


@dataclasses.dataclass(frozen=True)
class Setting:
    """Method and its baseline, on the same data with the same preset.

    Attributes:
        main_role: Role of the method.
        beside_role: Role of the baseline.
        main: Records of the method, or None.
        beside: Records of the baseline, or None.
    """

    main_role: Role
    beside_role: Role
    main: Group | None
    beside: Group | None

    @property
    def members(self) -> list[tuple[Role, Group]]:
        """Roles that have records; the method is last, so that it is drawn on top."""
        both = ((self.beside_role, self.beside), (self.main_role, self.main))
        return [(role, group) for role, group in both if group is not None]

    @property
    def size(self) -> tuple[str, str]:
        """Preset and fingerprint of the data."""
        return _size(self.members[-1][1])

    def describe(self) -> str:
        """Describes the runs of each role in one line."""
        return "; ".join(f"{role.label}: {group.describe()}" for role, group in self.members)


def _size(group: Group) -> tuple[str, str]:
    return group.preset, group.records[0].dataset["fingerprint"]


def settings_of(main: Role, beside: Role, records: Sequence[Record]) -> list[Setting]:
    """Pairs the groups of two experiments that have the same size, in the order of the page.

    Runs of different sizes are never paired. A group without a partner forms a setting of its own.
    Smoke runs say nothing about a method and are left out if there are other runs.
    """
    of_main, of_beside = (
        group_records([r for r in records if r.experiment == role.experiment.id])
        for role in (main, beside)
    )
    made = []
    for group in of_main:
        partners = [g for g in of_beside if _size(g) == _size(group) and not g.row_changes]
        made.append(Setting(main, beside, group, partners[0] if partners else None))
    paired = {id(s.beside) for s in made}
    made += [Setting(main, beside, None, g) for g in of_beside if id(g) not in paired]
    serious = [s for s in made if s.size[0] != "smoke"] or made
    # Stable sort: within a class, the order of the tables stays.
    return sorted(serious, key=lambda s: (s.main is None, bool(s.members[-1][1].row_changes)))


@dataclasses.dataclass(frozen=True)
class Curve:
    """Quantity over training, aggregated over seeds.

    Attributes:
        epochs: Epochs at which it was logged.
        mean: Mean over seeds.
        low: Smallest value over seeds.
        high: Largest value over seeds.
    """

    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def timing_of(record: Record) -> Timing:
    """Returns steps per epoch and length of a finished run."""
    config = record.config
    return Timing.of(
        config["schedule"]["length"],
        batch_size=config["data"]["batch_size"],
        examples=record.dataset["train"],
    )


def curve(group: Group | None, name: str, *, scale: float = 1.0) -> Curve | None:
    """Aggregates a logged quantity over seeds, at the steps that every seed logged.

    Args:
        group: Records of the seeds; None gives None.
        name: Name of the quantity in their history.
        scale: Factor applied to the values.

    Returns:
        The curve; None if the quantity is absent or the seeds share no step.
    """
    if group is None:
        return None
    histories = [dict(record.history.get(name, ())) for record in group.records]
    steps = sorted(set.intersection(*(set(h) for h in histories)))
    if not steps:
        return None
    values = [[scale * h[step] for h in histories] for step in steps]
    per_epoch = timing_of(group.records[0]).steps_per_epoch
    return Curve(
        tuple(step / per_epoch for step in steps),
        tuple(sum(v) / len(v) for v in values),
        tuple(min(v) for v in values),
        tuple(max(v) for v in values),
    )


def curve_data(series: Sequence[tuple[str, Curve]]) -> dict[str, Any]:
    """Converts curves to the data of a figure."""
    return {
        "columns": ["series", "epoch", "mean", "lowest", "highest"],
        "rows": [
            [name, *(rounded(v) for v in point)]
            for name, c in series
            for point in zip(c.epochs, c.mean, c.low, c.high, strict=True)
        ],
    }


def rounded(value: float) -> float:
    """Rounds to six significant digits, more than any figure shows."""
    return float(f"{value:.6g}")
