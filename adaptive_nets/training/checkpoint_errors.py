"""Errors of checkpoints: damage, full disks, and late errors of Orbax."""

from __future__ import annotations

import errno
import inspect
import sys
from typing import Any


class DamagedCheckpoint(Exception):
    """Checkpoint whose content is not what was saved; the message names the defect."""


def brief(error: BaseException) -> str:
    """Returns type and first line of an error, short enough for a message."""
    text = str(error).strip().splitlines()
    line = text[0] if text else ""
    return f"{type(error).__name__}: {line[:120]}" if line else type(error).__name__


def is_disk_full(error: BaseException) -> bool:
    """Returns whether the error or one of its causes is the system's 'no space left'."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left" in str(seen) or "RESOURCE_EXHAUSTED" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def silence_late_orbax_errors() -> None:
    """Hides the tracebacks of Orbax's remaining tasks after a first one has failed.

    The first failure closes Orbax's event loop while other files are still being read or written.
    Their tasks then raise "Event loop is closed" in background threads or are dropped. The first
    failure itself is still raised.
    """
    previous = sys.unraisablehook
    if getattr(previous, "silences_late_orbax_errors", False):
        return

    def hook(unraisable: Any) -> None:
        error, dropped = unraisable.exc_value, unraisable.object
        late = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        of_orbax = inspect.iscoroutine(dropped) and "orbax" in dropped.cr_code.co_filename
        if not (late or of_orbax):
            previous(unraisable)

    hook.silences_late_orbax_errors = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = hook
