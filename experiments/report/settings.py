"""Which records belong into one drawing, and their curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from adaptive_nets.training.duration import Timing
from experiments.suite.comparison import Group, group_records
from experiments.suite.experiment import Experiment
from experiments.suite.records import Record


@dataclasses.dataclass(frozen=True)
class Role:
    """An experiment as figures show it.

    Attributes:
        label: beside its curves.
        colour: the same in every figure.
        experiment: which.
    """

    label: str
    colour: str
    experiment: Experiment


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method and what it is compared with, on the same data with the same preset.

    Attributes:
        main_role: the method.
        beside_role: what it is compared with.
        main: records of the method, or None.
        beside: records of the other, or None.
    """

    main_role: Role
    beside_role: Role
    main: Group | None
    beside: Group | None

    @property
    def members(self) -> list[tuple[Role, Group]]:
        """Those that have records, the method last, so that it is drawn on top."""
        both = ((self.beside_role, self.beside), (self.main_role, self.main))
        return [(role, group) for role, group in both if group is not None]

    @property
    def size(self) -> tuple[str, str]:
        """Preset and fingerprint of the data."""
        return _size(self.members[-1][1])

    def describe(self) -> str:
        """One line: whose runs, and their size."""
        return "; ".join(f"{role.label}: {group.describe()}" for role, group in self.members)


def _size(group: Group) -> tuple[str, str]:
    return group.preset, group.records[0].dataset["fingerprint"]


def settings_of(main: Role, beside: Role, records: Sequence[Record]) -> list[Setting]:
    """Pairs of groups of the same size, the one to be shown first in front.

    Runs of one size are never drawn beside those of another. A group without a partner stands
    alone. Smoke runs say nothing about a method, so they are left out once there is anything else.
    """
    of_main, of_beside = (
        group_records([r for r in records if r.experiment == role.experiment.id])
        for role in (main, beside)
    )
    made = []
    for group in of_main:
        partners = [g for g in of_beside if _size(g) == _size(group)]
        made.append(Setting(main, beside, group, partners[0] if partners else None))
    paired = {id(s.beside) for s in made}
    made += [Setting(main, beside, None, g) for g in of_beside if id(g) not in paired]
    serious = [s for s in made if s.size[0] != "smoke"] or made
    # Sorting is stable: within a class the preset paper stays in front.
    return sorted(
        serious, key=lambda s: (s.main is None, bool(s.members[-1][1].records[0].changed))
    )


@dataclasses.dataclass(frozen=True)
class Curve:
    """A quantity over training.

    Attributes:
        epochs: where it was written down.
        mean: over seeds.
        low: smallest over seeds.
        high: largest over seeds.
    """

    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def timing_of(record: Record) -> Timing:
    """Steps per epoch and length of a finished run."""
    config = record.config
    return Timing.of(
        config["schedule"]["length"],
        batch_size=config["data"]["batch_size"],
        examples=record.dataset["train"],
    )


def curve(group: Group | None, name: str, *, scale: float = 1.0) -> Curve | None:
    """A quantity of the history over all seeds, at the steps that all of them wrote down.

    Args:
        group: the seeds; None gives None.
        name: in the history of their records.
        scale: what values are multiplied by.

    Returns:
        None if the quantity is absent or the seeds share no step.
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
    """Curves as the data of a figure."""
    return {
        "columns": ["series", "epoch", "mean", "lowest", "highest"],
        "rows": [
            [name, *(rounded(v) for v in point)]
            for name, c in series
            for point in zip(c.epochs, c.mean, c.low, c.high, strict=True)
        ],
    }


def rounded(value: float) -> float:
    """Six digits are more than any figure shows."""
    return float(f"{value:.6g}")
