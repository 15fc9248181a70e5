"""Graceful interruption at a step boundary, by ^C or by SIGTERM from a scheduler."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Raised when a signal stopped training, after the state was saved.

    Attributes:
        signal_name: "SIGINT" or "SIGTERM".
        exit_code: 128 + signal number, the shell convention.
        step: number of optimiser steps saved.
    """

    def __init__(self, received: signal.Signals, step: int):
        super().__init__(f"stopped by {received.name} at step {step}")
        self.signal_name = received.name
        self.exit_code = 128 + received.value
        self.step = step


class InterruptGuard:
    """Context manager that records the first signal; a second ^C raises KeyboardInterrupt.

    Outside the main thread it does nothing, since Python allows signal handlers only there.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._handle) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for received, handler in self._previous.items():
            signal.signal(received, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
