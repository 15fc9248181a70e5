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
# Steps and positions in the data are counted in int32.
_LIMITS = {
    "steps": 2**31 - 1,
    "epochs": 2**31 - 1,
    "examples": 2**53,
    "percent": 100,
}
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
            UserError: the text has another form, or the number is too large.
        """
        match = _FORM.fullmatch(text)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise UserError(f"{name} is {text!r}; expected {EXPECTED}")
        value, limit = float(match[1]), _LIMITS[unit]
        if value > limit:
            raise UserError(f"{name} is {text!r}; expected at most {limit:.12g} {unit}")
        return cls(value, unit)

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
            UserError: the batch is larger than the training set, or there are too many steps.
        """
        if batch_size > examples:
            raise UserError(
                f"--data.batch-size is {batch_size}; expected at most the {examples} training "
                "examples"
            )
        per_epoch = examples // batch_size
        total = Duration.parse(length).to_steps(steps_per_epoch=per_epoch, batch_size=batch_size)
        if total > _LIMITS["steps"]:
            raise UserError(
                f"--schedule.length is {length!r}, which is {total} steps; expected at most "
                f"{_LIMITS['steps']} steps"
            )
        return cls(max(total, 1), per_epoch, batch_size, examples)

    def steps(self, text: str) -> int:
        """Converts a duration to steps of this run, at most what int32 counts."""
        steps = Duration.parse(text).to_steps(
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.batch_size,
            total_steps=self.total_steps,
        )
        return min(steps, _LIMITS["steps"])

    def interval(self, text: str) -> int:
        """Converts the interval of a recurring event to steps, at least 1."""
        return max(self.steps(text), 1)


def check_order(
    first_flag: str, first: str, second_flag: str, second: str, timing: Timing | None = None
) -> None:
    """Checks that one time is not after another.

    Args:
        first_flag: flag of the earlier time, without dashes.
        first: earlier time, see `Duration.parse`.
        second_flag: flag of the later time.
        second: later time.
        timing: lengths of the run; without them, only times in the same unit are compared.

    Raises:
        UserError: the first time is after the second.
    """
    a, b = Duration.parse(first), Duration.parse(second)
    if timing is not None:
        late = timing.steps(first) > timing.steps(second)
    else:
        late = a.unit == b.unit and a.value > b.value
    if late:
        raise UserError(
            f"--{first_flag} is {first!r}, which is after --{second_flag} {second!r}; expected a "
            "time before it"
        )
