"""Progress reports: a bar on a terminal, a periodic line in a log."""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)

# Seconds between two lines if the console is not a terminal.
QUIET_INTERVAL = 10.0

# Number of recent updates over which the displayed rate is averaged.
WINDOW = 100
# Shown instead of a rate or a remaining time until two groups of steps are measured.
UNKNOWN = "–"


class ProgressReporter(Protocol):
    """Interface through which a loop reports its progress."""

    def start(self, title: str, *, done: int, total: int, unit: str = "steps") -> None:
        """Starts a task of `total` steps; the first `done` are complete."""
        ...

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Sets the number of completed steps and the values displayed with it."""
        ...

    def finish(self) -> None:
        """Ends the task."""
        ...

    def show(self, content: RenderableType) -> None:
        """Prints a line or a table above the bar."""
        ...


class SilentProgress:
    """Reporter that discards everything."""

    def start(self, title: str, *, done: int, total: int, unit: str = "steps") -> None:
        """Does nothing."""

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Does nothing."""

    def finish(self) -> None:
        """Does nothing."""

    def show(self, content: RenderableType) -> None:
        """Does nothing."""


def format_seconds(seconds: float) -> str:
    """Formats seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ConsoleProgress:
    """Progress with rate and remaining time: a bar on a terminal, periodic lines in a log.

    Args:
        console: output console; standard error by default, so that standard output carries only
            results.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID = TaskID(0)
        self._title = self._unit = ""
        self._total = 0
        self._last_line = 0.0
        self._recent: collections.deque[tuple[float, int]] = collections.deque(maxlen=WINDOW)

    def start(self, title: str, *, done: int, total: int, unit: str = "steps") -> None:
        """Starts the bar."""
        self._title, self._total, self._unit = title, total, unit
        self._last_line = time.monotonic()
        self._recent = collections.deque(maxlen=WINDOW)
        if self.console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[values]}"),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                title, total=total, completed=done, rate="", left="", values=""
            )

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Advances the bar, or prints a line if `QUIET_INTERVAL` has passed since the last one."""
        now = time.monotonic()
        rate = self._rate(done, now)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in (values or {}).items())
        speed, left = f"{UNKNOWN} {self._unit}/s", f"{UNKNOWN} left"
        if rate is not None:
            speed = f"{rate:.4g} {self._unit}/s"
            left = f"{format_seconds((self._total - done) / max(rate, 1e-9))} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=speed, left=left)
            if values:
                self._bar.update(self._task, values=shown)
        elif now - self._last_line >= QUIET_INTERVAL:
            self._last_line = now
            share = 100 * done / max(self._total, 1)
            self._line(
                f"{self._title}: {done}/{self._total} ({share:.0f}%), {speed}, {left}  {shown}"
            )

    def finish(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, content: RenderableType) -> None:
        """Prints a line or a table above the bar."""
        if isinstance(content, str):
            self._line(content)
        else:
            self.console.print(content)

    def _rate(self, done: int, now: float) -> float | None:
        """Returns steps per second over the last `WINDOW` updates; None before the third one.

        The first group of steps compiles. It ends with the first update, from which time counts, so
        that two further groups are measured.
        """
        if self._recent and done <= self._recent[-1][1]:
            return self._measured()
        self._recent.append((now, done))
        return self._measured()

    def _measured(self) -> float | None:
        if len(self._recent) < 3:
            return None
        (began, first), (ended, last) = self._recent[0], self._recent[-1]
        return (last - first) / max(ended - began, 1e-9)

    def _line(self, text: str) -> None:
        self.console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
