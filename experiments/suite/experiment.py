"""What an experiment is, and what it hands back."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from adaptive_nets.runtime.errors import UserError

PresetName = Literal["smoke", "quick", "paper"]
PRESETS: tuple[PresetName, ...] = ("smoke", "quick", "paper")


@dataclasses.dataclass(frozen=True)
class Bound:
    """Where a measure must lie for the run to be believed.

    Attributes:
        measure: name of a metric of the record.
        low: smallest value, in the metric's unit.
        high: largest value.
    """

    measure: str
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Preset:
    """One size of an experiment.

    Attributes:
        config: all values, a frozen dataclass of groups; see `suite.config`.
        seeds: number of seeds when none is asked for.
        bounds: of its measures.
    """

    config: Any
    seeds: int = 1
    bounds: tuple[Bound, ...] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of a paper's table or one line of its figure.

    Attributes:
        id: paper.table.row.
        title: one line.
        row: id of the row in the paper's `paper_values.toml`.
        presets: smoke (a few steps), quick (a small measurement), paper (the paper's own schedule
            and data).
        runner: "module:function" that runs one seed, see `Runner`.
        data: what the preset paper needs.
        deviations: how it differs from the paper, one sentence each; shown wherever its numbers
            are.
        explanations: measure -> why ours is outside the tolerance, where that is known.
        aliases: earlier ids, which find it still.
    """

    id: str
    title: str
    row: str
    presets: Mapping[str, Preset]
    runner: str
    data: str
    deviations: tuple[str, ...] = ()
    explanations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def paper(self) -> str:
        """First part of the id."""
        return self.id.split(".", 1)[0]

    def load_runner(self) -> Runner:
        """Imports the function that runs one seed.

        Raises:
            UserError: It cannot be imported.
        """
        module, _, function = self.runner.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except Exception as error:
            raise UserError(
                f"experiment {self.id!r}: its runner {self.runner!r} cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        value: None where it is infinite or undefined; `note` says which.
        unit: "%", "nats", "x", "bytes", "weights", "s", "steps/s".
        count: how many examples, weights or runs it is over.
        note: anything to be said about it.
    """

    value: float | None
    unit: str
    count: int = 1
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one seed gave.

    Attributes:
        metrics: measured numbers by name.
        arrays: small arrays for figures, by name.
        seconds: training time.
        steps: optimiser steps.
    """

    metrics: Mapping[str, Metric]
    arrays: Mapping[str, np.ndarray]
    seconds: float
    steps: int


class Runner(Protocol):
    """Runs one seed of one configuration in one folder, going on where it stopped."""

    def __call__(
        self, config, *, dataset, directory: Path, seed: int, progress, title: str
    ) -> Outcome:
        """Trains, evaluates, and returns what was measured."""
        ...
