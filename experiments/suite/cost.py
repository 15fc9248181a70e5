"""Cost of an experiment: the measured time of one seed, from records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import median

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import format_seconds
from adaptive_nets.training.duration import Duration, Timing
from experiments.suite import config as config_lib
from experiments.suite.experiment import PRESETS, Experiment
from experiments.suite.records import Record

LENGTH = "schedule.length"
# Flags that hardly change the time per training example.
_SAME_SPEED = ("schedule.", "optimiser.", "variational.", "data.batch_size", "data.test_limit")


@dataclasses.dataclass(frozen=True)
class SeedCost:
    """Time of one seed of a preset.

    Attributes:
        preset: name of the preset.
        seconds: median over records.
        device: device of the measurement.
        extrapolated: whether the time is extrapolated from a run of another length.
    """

    preset: str
    seconds: float
    device: str
    extrapolated: bool

    def __str__(self) -> str:
        time = format_seconds(self.seconds)
        if self.extrapolated:
            return f"{self.preset} about {time} on {self.device} (extrapolated)"
        return f"{self.preset} {time} on {self.device}"


def seed_costs(experiment: Experiment, records: Sequence[Record]) -> list[SeedCost]:
    """Returns the cost of every preset with a record to measure or extrapolate it from.

    A run of the unchanged preset counts if the data were all that the preset uses. If there is no
    such record, the cost is extrapolated from records with another
    length of training: time per training example, times the number of examples of the preset. The
    cost of experiments without training steps is not extrapolated.

    Args:
        experiment: experiment whose presets are listed.
        records: records of any experiments.
    """
    costs = []
    for preset in PRESETS:
        runs = [r for r in records if r.experiment == experiment.id and r.preset == preset]
        whole = [(run, run.seconds) for run in runs if _is_whole(experiment, run)]
        other = [(run, _extrapolated(experiment, run)) for run in runs if LENGTH in run.changed]
        timed = whole or [(run, seconds) for run, seconds in other if seconds is not None]
        if timed:
            where = device_text(timed[0][0])
            here = [seconds for run, seconds in timed if device_text(run) == where]
            costs.append(SeedCost(preset, median(here), where, extrapolated=not whole))
    return costs


def cost_text(costs: Sequence[SeedCost]) -> str:
    """Formats costs in one line."""
    return ", ".join(map(str, costs)) or "not measured"


def device_text(record: Record) -> str:
    """Formats the device of a record: '2 cores', or the name of the accelerator."""
    device = record.devices
    return f"{device['cpu_cores']} cores" if device["platform"] == "cpu" else device["kind"]


def _is_whole(experiment: Experiment, record: Record) -> bool:
    """Returns whether a run did all the work of its preset."""
    if record.changed or record.preset not in experiment.presets:
        return False
    if record.dataset["complete"]:
        return True
    # Imported here, since only records of incomplete data need it.
    from adaptive_nets.data.catalogue import lookup

    data = config_lib.group(experiment.presets[record.preset].config, "data")
    if data is None:
        return False
    try:
        official = lookup(data.name).splits
    except UserError:
        return False
    limits = {name: getattr(data, f"{name}_limit", 0) for name in ("train", "test")}
    return all(
        record.dataset[name] >= min(limit or official[name], official[name])
        for name, limit in limits.items()
    )


def _extrapolated(experiment: Experiment, record: Record) -> float | None:
    """Returns the time of the preset's full length; None if it cannot be extrapolated."""
    preset = experiment.presets.get(record.preset)
    schedule = config_lib.group(preset.config, "schedule") if preset else None
    if preset is None or schedule is None or not record.steps:
        return None
    if not all(name.startswith(_SAME_SPEED) for name in record.changed):
        return None
    if not record.dataset["complete"] and Duration.parse(schedule.length).unit == "epochs":
        # Epochs of a smaller set have fewer steps.
        return None
    size = config_lib.group(preset.config, "data").batch_size
    try:
        steps = Timing.of(
            schedule.length, batch_size=size, examples=record.dataset["train"] or 0
        ).total_steps
    except UserError:
        return None
    examples = record.steps * record.config["data"]["batch_size"]
    return record.seconds / examples * steps * size
