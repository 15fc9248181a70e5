"""Showing people how far a run is: a bar on a terminal, a line now and then elsewhere."""

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

# Seconds between two lines where there is no terminal.
QUIET_INTERVAL = 10.0

# Updates that the shown rate is an average over.
WINDOW = 100


class ProgressReporter(Protocol):
    """What the loop tells about itself."""

    def start(self, title: str, *, done: int, total: int, unit: str = "steps") -> None:
        """A task of `total` steps begins, `done` of which were done earlier."""
        ...

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """So many steps are done; values are shown beside."""
        ...

    def finish(self) -> None:
        """The task is over."""
        ...

    def show(self, content: RenderableType) -> None:
        """Prints a line or a table above the bar."""
        ...


class SilentProgress:
    """Shows nothing."""

    def start(self, title: str, *, done: int, total: int, unit: str = "steps") -> None:
        """Nothing."""

    def update(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""

    def show(self, content: RenderableType) -> None:
        """Nothing."""


def format_seconds(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ConsoleProgress:
    """A bar with rate and remaining time on a terminal, lines with the same in a log.

    Args:
        console: where to; standard error by default, so that standard output stays free for
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
        """Begins a bar."""
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
        """Moves the bar, or prints a line if the last one is a while ago."""
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
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, content: RenderableType) -> None:
        """Prints above the bar."""
        if isinstance(content, str):
            self._line(content)
        else:
            self.console.print(content)

    def _rate(self, done: int, now: float) -> float:
        """Per second over the last updates, so that the compilation of the first step drops out."""
        self._recent.append((now, done))
        began, first = self._recent[0]
        return (done - first) / max(now - began, 1e-9)

    def _line(self, text: str) -> None:
        self.console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
