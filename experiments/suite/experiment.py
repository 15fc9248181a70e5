"""Experiments, their presets and their outcomes."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from adaptive_nets.runtime.errors import UserError

PresetName = Literal["smoke", "quick", "day", "paper"]
PRESETS: tuple[PresetName, ...] = ("smoke", "quick", "day", "paper")
OPTIONAL: tuple[PresetName, ...] = ("day",)
"""Presets that an experiment may lack."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """Range of plausible values of a measure.

    Attributes:
        measure: name of a metric of the record.
        low: smallest plausible value, in the metric's unit.
        high: largest plausible value.
    """

    measure: str
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Preset:
    """One size of an experiment.

    Attributes:
        config: configuration, a frozen dataclass of groups; see `suite.config`.
        seeds: default number of seeds.
        bounds: plausible ranges of its measures.
    """

    config: Any
    seeds: int = 1
    bounds: tuple[Bound, ...] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Experiment that reproduces one row of a paper's table or one line of its figure.

    Attributes:
        id: identifier of the form paper.table.row.
        title: title in one line.
        row: id of the row in the paper's `paper_values.toml`.
        presets: presets by name: smoke (a few steps), quick (a small measurement), day (as long a
            training as two cores finish in an hour or two; not every experiment has it), paper
            (the paper's own schedule and data).
        runner: "module:function" of a `Runner`.
        data: data sets of the preset paper, for listings.
        deviations: deviations from the paper, one sentence each; shown wherever its numbers are.
        explanations: measure -> known reason for a value outside the tolerance.
        aliases: earlier ids, which are still accepted.
        measures: measures of the paper's row that the runner records.
        chosen: measure -> reason why our value is a choice and not a result, such as "target of
            our rule"; it is shown without a difference from the paper's.
        recipe: names of values outside `suite.recipe.RECIPE_GROUPS` that belong to the recipe: a
            run that changes them is still a run of the row.
        folder: name of the paper's folder if its ids begin otherwise; the registry sets it.
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
    measures: tuple[str, ...] = ()
    chosen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    recipe: tuple[str, ...] = ()
    folder: str = ""

    @property
    def paper(self) -> str:
        """Name of the paper: its folder's, usually the first part of the id."""
        return self.folder or self.id.split(".", 1)[0]

    def load_runner(self) -> Runner:
        """Imports the function that runs one seed.

        Raises:
            UserError: it cannot be imported.
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
    """Measured number.

    Attributes:
        value: value of the metric; None if it is infinite or undefined, as `note` explains.
        unit: unit such as "%", "nats", "x", "bytes", "weights", "s" or "steps/s".
        count: number of examples, weights or runs that it is computed over.
        note: remark for readers.
    """

    value: float | None
    unit: str
    count: int = 1
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Results of one seed.

    Attributes:
        metrics: measured numbers by name.
        arrays: small arrays for figures, by name.
        seconds: training time in seconds.
        steps: number of optimiser steps.
    """

    metrics: Mapping[str, Metric]
    arrays: Mapping[str, np.ndarray]
    seconds: float
    steps: int


class Runner(Protocol):
    """Function that runs one seed of a configuration in a folder, and resumes if interrupted."""

    def __call__(
        self, config, *, dataset, directory: Path, seed: int, progress, title: str
    ) -> Outcome:
        """Trains, evaluates and returns the measured numbers."""
        ...
