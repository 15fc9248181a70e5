"""What an experiment adds to the training loop: network, objective, evaluation, batches.

The loop itself knows arrays by name and nothing of labels; see `classification` for the task that
most experiments have.
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
"""Random streams that the networks of the zoo draw from in training."""

Batch = Mapping[str, Array]
"""Arrays by name; in evaluation with ``"weight"``, 1 for each example and 0 for padding."""

Objective = Callable[[Any, Batch, Any, Int[Array, ""]], tuple[Float[Array, ""], dict[str, Mean]]]
"""(model output, batch, params, step) -> (loss to minimise, metrics)."""

AfterStep = Callable[[Any, Any, Batch, Int[Array, ""]], Any]
"""(other collections, model output, batch, step) -> other collections, for the next step."""

Measures = Callable[[Any, Batch], dict[str, Mean]]
"""(model output, batch) -> what evaluation reports; padding is left out by the batch's weight."""


def image_of(batch: Batch) -> Array:
    """The images of a batch."""
    return batch["image"]


def all_measures(measured: Mapping[str, float]) -> dict[str, float]:
    """Every measure under the name that it is logged by."""
    return {f"test/{name}": value for name, value in measured.items()}


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, on what, and how it is judged.

    Attributes:
        model: the network: anything with the `init` and `apply` of a linen module.
        objective: lengths of the run -> loss and training metrics. The lengths are those of the
            data that is trained on, in memory or streamed.
        measures: evaluation, logged as ``test/NAME``.
        shown: values of the measures -> what the progress bar shows.
        inputs: batch -> what the network is called with.
        prepare: rows of the data, images normalised -> batch, in training and in evaluation.
        augment: random changes to training rows before that, instead of the crops and flips that
            the configuration asks for.
        streams: names of the random streams that the network draws from in training.
        start: (fresh parameters, fresh model state) -> those that training begins with, of the same
            shapes: weights of another network, for instance.
        after: lengths of the run -> what becomes of the model state once a step's output is known.
        describe: values to log at every evaluation, from the parameters that are evaluated.
        assess: values to log at every evaluation, from (variables, test set).
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
    after: Callable[[Timing], AfterStep] | None = None
    describe: Callable[[Any], Mapping[str, float]] = lambda params: {}
    assess: Callable[[Any, DeviceSplit], Mapping[str, float]] = lambda variables, test: {}

    def evaluate_batch(self, variables: Any, rows: Batch) -> dict[str, Mean]:
        """Measures of one batch, the network applied as in evaluation."""
        prepared = self.prepare({name: row for name, row in rows.items() if name != WEIGHT})
        batch = {**prepared, WEIGHT: rows[WEIGHT]}
        output = self.model.apply(variables, self.inputs(batch), train=False)
        return self.measures(output, batch)
