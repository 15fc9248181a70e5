"""Ranges of configuration values, declared with their fields and checked in one place.

A field declares its range in its type, ``learning_rate: Positive = 1e-3`` or
``tau: Annotated[float, Range(0)] = 0.01``. The help of a flag, the check of a value and its message
are made from the declaration. A number without one has the range of its type in `check_ranges`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.duration import EXPECTED, Duration

INT32_MAX = 2**31 - 1
UINT32_MAX = 2**32 - 1
UNNAMED = ("train", "values")
"""Fields whose groups appear in flags without the name of the field."""

# Smallest positive number that float32 holds in full; XLA may flush smaller ones to 0.
FLOAT32_TINY = 2.0**-126


@dataclasses.dataclass(frozen=True)
class Range:
    """Interval of a number, or of every number of a tuple, as metadata of ``Annotated``.

    A float must lie in it as given and as the nearest float32, in which arrays hold it.

    Attributes:
        low: lower end.
        high: upper end.
        open_low: whether the lower end is excluded.
        open_high: whether the upper end is excluded.
        least: smallest number of elements of a tuple.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    least: int = 0

    def __contains__(self, value: Any) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def accepts(self, value: Any) -> bool:
        """Returns whether a number, or every number of a tuple, is finite and in the interval."""
        if isinstance(value, (tuple, list)):
            return len(value) >= self.least and all(self.accepts(item) for item in value)
        if isinstance(value, float):
            rounded = _as_float32(value)
            return rounded is not None and value in self and rounded in self
        return value in self

    def describe(self, kind: type | None = None) -> str:
        """Returns the expectation as words, such as "a number in [0, 1)".

        Args:
            kind: `int` for whole numbers, `float` for others; None if unknown.
        """
        low, high = f"{self.low:.12g}", f"{self.high:.12g}"
        positive = (self.low, self.open_low) == (0, True) or (kind is int and self.low == 1)
        if math.isinf(self.low) and math.isinf(self.high):
            return "a finite number"
        if math.isinf(self.high):
            return "a positive number" if positive else f"{low} or more"
        if positive and kind is int:
            return f"a positive number up to {high}"
        if kind is int:
            return f"a whole number from {low} to {high}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"a number in {left}{low}, {high}{right}"


def _as_float32(value: float) -> float | None:
    """Returns the nearest float32; None if there is none, or if a number becomes 0 or subnormal."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return None
    if not math.isfinite(rounded) or (value and abs(rounded) < FLOAT32_TINY):
        return None
    return rounded


@dataclasses.dataclass(frozen=True)
class DurationRange:
    """Range of a `Duration` given as text, or of every text of a tuple, as metadata.

    Attributes:
        kind: "length" of a training, positive and not in percent; "interval", positive; or
            "moment", 0 or more.
    """

    kind: Literal["length", "interval", "moment"]

    def check(self, value: Any, flag: str) -> None:
        """Checks a text, or every text of a tuple.

        Raises:
            UserError: it is no duration, or out of range.
        """
        if isinstance(value, (tuple, list)):
            for text in value:
                self.check(text, flag)
            return
        duration = Duration.parse(value, name=f"--{flag}")
        refused = self.kind == "length" and duration.unit == "percent"
        if refused or (self.kind != "moment" and duration.value == 0):
            raise UserError(f"--{flag} is {value!r}; expected {self.describe()}")

    def describe(self) -> str:
        """Returns the expectation as words."""
        if self.kind == "length":
            return "a positive number of steps, epochs or examples"
        return EXPECTED if self.kind == "moment" else f"{EXPECTED}, above 0"


Count = Annotated[int, Range(1, INT32_MAX)]
"""Whole number above 0."""
Size = Annotated[int, Range(0, INT32_MAX)]
"""Whole number; 0 often stands for a default."""
EvalBatch = Annotated[int, Range(1, 2**16)]
"""Images per compiled step; a step is padded to this size, so it has to fit the memory."""
Workers = Annotated[int, Range(0, 1024)]
"""Processes of one machine."""
Threads = Annotated[int, Range(1, 1024)]
"""Threads or prefetched batches of one machine."""
Seed = Annotated[int, Range(0, UINT32_MAX)]
"""Seed that NumPy and `jax.random` accept."""
Positive = Annotated[float, Range(0, open_low=True)]
"""Number above 0."""
NonNegative = Annotated[float, Range(0)]
"""Number that may be 0."""
Seconds = Annotated[float, Range(0, 1e6, open_low=True)]
"""Duration of a measurement."""
Share = Annotated[float, Range(0, 1, open_high=True)]
"""Number from 0 to 1, not 1."""
InsideUnit = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
"""Number between 0 and 1, neither of them."""
Length = Annotated[str, DurationRange("length")]
"""Length of a training."""
Interval = Annotated[str, DurationRange("interval")]
"""Interval of a recurring event."""
Moment = Annotated[str, DurationRange("moment")]
"""Time of an event."""

_DEFAULTS = {int: Range(-INT32_MAX, INT32_MAX), float: Range()}


@functools.cache
def _hints(group: type) -> dict[str, Any]:
    return typing.get_type_hints(group, include_extras=True)


def _marks(hint: Any) -> Iterator[Any]:
    """Yields the metadata of a type and of the types within it, such as those of a union."""
    yield from getattr(hint, "__metadata__", ())
    for inner in typing.get_args(hint):
        yield from _marks(inner)


def declared_range(group: type, field: str) -> Range | DurationRange | None:
    """Returns the range that a field of a dataclass declares; None if it declares none."""
    marks = _marks(_hints(group)[field])
    return next((mark for mark in marks if isinstance(mark, (Range, DurationRange))), None)


def _kind(value: Any) -> type | None:
    """Returns `int` or `float` for a number or a tuple of numbers, None for anything else."""
    kinds = {type(item) for item in _items(value)}
    return (int if kinds == {int} else float) if kinds and kinds <= {int, float} else None


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list)) else (value,)


def described_ranges(form: type, prefix: str = "") -> dict[str, str]:
    """Returns the declared ranges as words: "data.batch_size" -> "a positive number …".

    Args:
        form: dataclass whose fields are flags or groups of flags.
        prefix: beginning of their names.
    """
    found: dict[str, str] = {}
    for field in dataclasses.fields(form):
        types = list(_types(_hints(form)[field.name]))
        groups = [t for t in types if isinstance(t, type) and dataclasses.is_dataclass(t)]
        inner = prefix if field.name in UNNAMED else f"{prefix}{field.name}."
        for group in groups:
            found |= described_ranges(group, inner)
        declared = declared_range(form, field.name)
        if isinstance(declared, DurationRange):
            found[prefix + field.name] = declared.describe()
        elif declared is not None:
            found[prefix + field.name] = declared.describe(int if int in types else float)
    return found


def _types(hint: Any) -> Iterator[Any]:
    """Yields a type and the types within it."""
    yield hint
    for inner in typing.get_args(hint):
        yield from _types(inner)


def check_ranges(values: Any, prefix: str = "") -> None:
    """Checks every number and duration of a dataclass, and of dataclasses in its fields.

    Args:
        values: dataclass whose fields are flags.
        prefix: beginning of its flags, such as "data."; a field ``train`` has no name in them.

    Raises:
        UserError: a value is out of its range; the message names flag, value and range.
    """
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            named = field.name not in UNNAMED
            check_ranges(value, f"{prefix}{field.name}." if named else prefix)
            continue
        flag = (prefix + field.name).replace("_", "-")
        declared = declared_range(type(values), field.name)
        if isinstance(declared, DurationRange):
            declared.check(value, flag)
            continue
        kind = _kind(value)
        interval = declared or (_DEFAULTS[kind] if kind else None)
        if value is None or interval is None or interval.accepts(value):
            continue
        every = ""
        if isinstance(value, (tuple, list)):
            every = "each " if len(value) >= interval.least else f"at least {interval.least}, each "
        text = interval.describe(kind)
        if kind is float and _fails_in_float32_only(interval, value):
            text = f"{text}, in float32"
        raise UserError(f"--{flag} is {_shown(value)}; expected {every}{text}")


def _fails_in_float32_only(interval: Range, value: Any) -> bool:
    return all(math.isfinite(item) and item in interval for item in _items(value))


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # An integer of thousands of digits.
        return "a number of thousands of digits"


class FlagGroup:
    """Base of a group of flags, a frozen dataclass: its ranges are checked when it is built.

    A subclass with rules between fields extends ``__post_init__``.

    Attributes:
        flags: name of the group in flags, given as ``class DataConfig(FlagGroup, flags="data")``.
    """

    flags: ClassVar[str] = ""

    def __init_subclass__(cls, *, flags: str | None = None, **options: Any):
        super().__init_subclass__(**options)
        if flags is not None:
            cls.flags = flags

    def __post_init__(self):
        check_ranges(self, f"{self.flags}." if self.flags else "")
