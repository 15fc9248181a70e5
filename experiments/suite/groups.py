"""Groups of records that differ in the seed only, in the order in which they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import PurePosixPath

from adaptive_nets.training.duration import Timing
from experiments.suite import config as config_lib
from experiments.suite.experiment import PRESETS
from experiments.suite.recipe import is_recipe
from experiments.suite.records import Record
from experiments.suite.registry import experiments, find_experiment


@dataclasses.dataclass(frozen=True)
class Group:
    """Records of one experiment that differ in the seed only."""

    records: tuple[Record, ...]

    @property
    def preset(self) -> str:
        """Preset shared by the whole group."""
        return self.records[0].preset

    @property
    def row_changes(self) -> tuple[str, ...]:
        """Names of the changed flags that define the row; see `suite.recipe`."""
        first = self.records[0]
        experiment = experiments().get(first.experiment)
        own = experiment.recipe if experiment else ()
        return tuple(name for name in first.changed if not is_recipe(name, own))

    @property
    def row_text(self) -> str:
        """Says which flags make this another row, "; changed: halting.tau=0.005"; "" if none."""
        names = self.row_changes
        return f"; changed: {changes(self.records[0], names)}" if names else ""

    @property
    def is_reduced(self) -> bool:
        """True if data set or schedule are smaller than the paper's."""
        first = self.records[0]
        return first.preset != "paper" or not first.dataset["complete"] or _is_shortened(first)

    def values(self, measure: str) -> list[float]:
        """Returns the finite values of a measure, one per seed."""
        metrics = [record.metric(measure) for record in self.records]
        return [m.value for m in metrics if m is not None and m.value is not None]

    def why_not_finite(self, measure: str) -> str:
        """Returns the note on a measure without a finite value; "" if no record has the measure."""
        metrics = [record.metric(measure) for record in self.records]
        return next((m.note or "not finite" for m in metrics if m is not None), "")

    def describe(self) -> str:
        """Formats preset, seeds, data and steps in one line."""
        first = self.records[0]
        seeds = f"{len(self.records)} seed{'s' if len(self.records) > 1 else ''}"
        data = f"{first.dataset['train']:,} images" if first.dataset["train"] else "no data"
        changed = f", with {changes(first)}" if first.changed else ""
        return f"preset {first.preset}, {seeds}, {data}, {first.steps:,} steps{changed}"


def changes(record: Record, names: Sequence[str] | None = None) -> str:
    """Returns the flags that differ from the preset, with their values: "halting.tau=0.005".

    Args:
        record: record of a run.
        names: names of the flags; None for all that differ.
    """
    values = {**config_lib.ADDED_DEFAULTS, **config_lib.flat(record.config)}
    chosen: Sequence[str] = record.changed if names is None else names
    return ", ".join(f"{name}={_value_text(values.get(name))}" for name in chosen)


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_value_text(part) for part in value)
    if isinstance(value, str):
        # A path is valid on one machine only; its last part names the run.
        return PurePosixPath(value).name if "/" in value else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_shortened(record: Record) -> bool:
    """Returns whether flags made the training shorter than the paper's."""
    if "schedule.length" not in record.changed or not record.dataset["train"]:
        return False
    config = find_experiment(record.experiment).presets["paper"].config
    schedule, data = (config_lib.group(config, name) for name in ("schedule", "data"))
    if schedule is None or data is None:
        return False
    whole = Timing.of(
        schedule.length,
        batch_size=data.batch_size,
        examples=record.dataset["train"],
    )
    epochs = record.steps * record.config["data"]["batch_size"] / record.dataset["train"]
    return epochs < whole.total_steps / whole.steps_per_epoch


def group_records(records: Sequence[Record]) -> list[Group]:
    """Groups records by experiment, preset, configuration and data.

    Groups in which a flag that defines the row is changed come last. Among the others the preset
    paper is first; within a preset complete data, then the fewest changes, then the longest run.
    """
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    made = [Group(tuple(sorted(g, key=lambda r: r.seed))) for g in groups.values()]
    return sorted(made, key=_order)


def _order(group: Group) -> tuple:
    first = group.records[0]
    order = {name: i for i, name in enumerate(reversed(PRESETS))}
    examples = first.steps * first.config.get("data", {}).get("batch_size", 1)
    return (
        bool(group.row_changes),
        order.get(first.preset, len(order)),
        not first.dataset["complete"],
        len(first.changed),
        -examples,
    )
