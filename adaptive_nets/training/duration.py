"""Lengths of training in steps, epochs, examples or percent."""

from __future__ import annotations

import dataclasses
import re

from adaptive_nets.runtime.errors import UserError

_UNITS = {
    "step": "steps",
    "epoch": "epochs",
    "example": "examples",
    "percent": "percent",
    "%": "percent",
}
_FORM = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(%|[a-z]+?)s?\s*", re.IGNORECASE)
EXPECTED = "a number and a unit, such as '200 epochs', '12000 steps', '3e6 examples' or '5%'"


@dataclasses.dataclass(frozen=True)
class Duration:
    """Length of training.

    Attributes:
        value: number of units, not negative.
        unit: "steps", "epochs", "examples" or "percent" (of the whole training).
    """

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str, *, name: str = "duration") -> Duration:
        """Parses '200 epochs', '200epochs', '12000 steps', '3e6 examples' or '5%'.

        Args:
            text: number and unit.
            name: name of the setting, for the message.

        Raises:
            UserError: the text has another form.
        """
        match = _FORM.fullmatch(text)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise UserError(f"{name} is {text!r}; expected {EXPECTED}")
        return cls(float(match[1]), unit)

    def to_steps(
        self, *, steps_per_epoch: int, batch_size: int, total_steps: int | None = None
    ) -> int:
        """Converts to optimiser steps, rounded to the nearest.

        Args:
            steps_per_epoch: steps in one pass over the training set.
            batch_size: global batch size, for lengths in examples.
            total_steps: steps of the whole training, for lengths in percent.

        Raises:
            UserError: the length is in percent and ``total_steps`` is not given.
        """
        if self.unit == "steps":
            return round(self.value)
        if self.unit == "epochs":
            return round(self.value * steps_per_epoch)
        if self.unit == "examples":
            return round(self.value / batch_size)
        if total_steps is None:
            raise UserError(
                f"the length of training is given as {self.value:g}%; "
                "expected steps, epochs or examples"
            )
        return round(self.value / 100 * total_steps)


@dataclasses.dataclass(frozen=True)
class Timing:
    """Lengths of one run in steps.

    Attributes:
        total_steps: steps of the whole training.
        steps_per_epoch: steps in one pass over the training set; an incomplete last batch is
            dropped.
        batch_size: global batch size.
        examples: number of training examples.
    """

    total_steps: int
    steps_per_epoch: int
    batch_size: int
    examples: int

    @classmethod
    def of(cls, length: str, *, batch_size: int, examples: int) -> Timing:
        """Computes the timing of a run.

        Args:
            length: length of training, see `Duration.parse`.
            batch_size: global batch size.
            examples: number of training examples.

        Raises:
            UserError: the batch is larger than the training set.
        """
        if batch_size > examples:
            raise UserError(
                f"--data.batch-size is {batch_size}; expected at most the {examples} training "
                "examples"
            )
        per_epoch = examples // batch_size
        total = Duration.parse(length).to_steps(steps_per_epoch=per_epoch, batch_size=batch_size)
        return cls(max(total, 1), per_epoch, batch_size, examples)

    def steps(self, text: str) -> int:
        """Converts a duration to steps of this run."""
        return Duration.parse(text).to_steps(
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            total_steps=self.total_steps,
        )

    def interval(self, text: str) -> int:
        """Converts the interval of a recurring event to steps, at least 1."""
        return max(self.steps(text), 1)
