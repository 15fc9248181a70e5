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
    TimeRemainingColumn,
)

# Seconds between two lines if the console is not a terminal.
QUIET_INTERVAL = 10.0

# Number of recent updates over which the displayed rate is averaged.
WINDOW = 100


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
        self._recent = collections.deque([(self._last_line, done)], maxlen=WINDOW)
        if self.console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("left"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[values]}"),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, completed=done, rate="", values="")

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Advances the bar, or prints a line if `QUIET_INTERVAL` has passed since the last one."""
        now = time.monotonic()
        rate = self._rate(done, now)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in (values or {}).items())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=f"{rate:.4g} {self._unit}/s")
            if values:
                self._bar.update(self._task, values=shown)
        elif now - self._last_line >= QUIET_INTERVAL:
            self._last_line = now
            left = format_seconds((self._total - done) / max(rate, 1e-9))
            share = 100 * done / max(self._total, 1)
            self._line(
                f"{self._title}: {done}/{self._total} ({share:.0f}%), {rate:.4g} {self._unit}/s, "
                f"{left} left  {shown}"
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

    def _rate(self, done: int, now: float) -> float:
        """Returns steps per second over the last `WINDOW` updates, so compile time drops out."""
        self._recent.append((now, done))
        began, first = self._recent[0]
        return (done - first) / max(now - began, 1e-9)

    def _line(self, text: str) -> None:
        self.console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
