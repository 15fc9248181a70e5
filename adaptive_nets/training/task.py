"""Task: the network, objective, evaluation and batches that an experiment gives the training loop.

A batch is a mapping of named arrays, with or without labels. The module `classification` has the
task of images with one label each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Float, Int

from adaptive_nets.data.device import Augment, DeviceSplit
from adaptive_nets.data.splits import WEIGHT
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.metrics import Mean

STREAMS = ("dropout", "noise", "gumbel", "drop_path", "halting")
"""Random streams that networks of the zoo draw from in training."""

Batch = Mapping[str, Array]
"""Arrays by name; in evaluation with ``"weight"``, 1 for each example and 0 for padding."""

Objective = Callable[[Any, Batch, Any, Int[Array, ""]], tuple[Float[Array, ""], dict[str, Mean]]]
"""(full output of the model, batch, params, step) -> (loss to minimise, metrics)."""

AfterStep = Callable[[Any, Any, Batch, Int[Array, ""]], Any]
"""(collections, full output of the model, batch, step) -> collections of the next step."""

Measures = Callable[[Any, Batch], dict[str, Mean]]
"""(model output, batch) -> metrics of evaluation; the batch's weight excludes padding."""


def image_of(batch: Batch) -> Array:
    """Returns the images of a batch."""
    return batch["image"]


def all_measures(measured: Mapping[str, float]) -> dict[str, float]:
    """Returns every measure under its logged name, ``test/NAME``."""
    return {f"test/{name}": value for name, value in measured.items()}


@dataclasses.dataclass(frozen=True)
class Task:
    """Network, objective and evaluation of a training run.

    Attributes:
        model: network, an object with the `init` and `apply` of a linen module.
        objective: timing of the run -> objective (loss and training metrics).
        measures: metrics of evaluation, logged as ``test/NAME``.
        shown: values of the measures -> values that the progress bar shows.
        inputs: batch -> input of the network.
        prepare: rows with normalised images -> batch, in training and in evaluation.
        augment: on-device augmentation of training rows before `prepare`; replaces the crops and
            flips of the configuration.
        streams: names of the random streams that the network draws from in training.
        start: (initial parameters, initial model state) -> parameters and model state of the same
            shapes that training starts from, such as weights of another network.
        rate_factors: parameters -> factor of the learning rate of each; None for 1.
        after: timing of the run -> update of the model state after each step.
        describe: evaluated parameters -> further values to log at every evaluation.
        assess: (variables, test set) -> further values to log at every evaluation.
    """

    model: Any
    objective: Callable[[Timing], Objective]
    measures: Measures
    shown: Callable[[Mapping[str, float]], Mapping[str, float]] = all_measures
    inputs: Callable[[Batch], Any] = image_of
    prepare: Callable[[Batch], Batch] = dict
    augment: Augment | None = None
    streams: tuple[str, ...] = STREAMS
    start: Callable[[Any, Any], tuple[Any, Any]] | None = None
    rate_factors: Callable[[Any], Any] | None = None
    after: Callable[[Timing], AfterStep] | None = None
    describe: Callable[[Any], Mapping[str, float]] = lambda params: {}
    assess: Callable[[Any, DeviceSplit], Mapping[str, float]] = lambda variables, test: {}

    def evaluate_batch(self, variables: Any, rows: Batch) -> dict[str, Mean]:
        """Computes the measures of one batch, with the network in evaluation mode."""
        prepared = self.prepare({name: row for name, row in rows.items() if name != WEIGHT})
        batch = {**prepared, WEIGHT: rows[WEIGHT]}
        output = self.model.apply(variables, self.inputs(batch), train=False)
        return self.measures(output, batch)
