"""Translation of aborts in native code, such as a C++ ``LOG(FATAL)``, to one line and an exit code.

A library that calls ``abort()`` ends the process with SIGABRT after a stack trace on standard
error; Python cannot catch this. Two measures leave time to explain it. The file descriptor of
standard error leads to a pipe, whose reader sees the fatal message; Python's own `sys.stderr` keeps
the terminal. And the handler of SIGABRT is the C function ``sleep``, called with the number of the
signal: it delays the abort by six seconds and needs no Python. If the reader does not end the
process within them, the abort takes its course.

Standard output is treated alike: what native code prints there goes to standard error, so that
standard output carries results alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator

# First line of a fatal message in the format of Abseil and glog.
_FATAL = re.compile(r"^F\d{4,8} .*\]")

# A fatal message is complete once its stack trace begins or nothing follows for this long.
_TRACE = "*** Check failure stack trace"
_QUIET_SECONDS = 1.0

# Printed by XLA's CPU client for every group of devices that it connects.
_NOISE = "[Gloo] Rank "


@contextlib.contextmanager
def translated_aborts(explain: Callable[[str], None]) -> Iterator[None]:
    """Calls a function with the text of a fatal message before the process is aborted.

    Args:
        explain: called in a thread of its own; ends the process if it recognises the message. If
            it returns, the message is printed and the abort goes ahead.
    """
    if os.name != "posix":
        yield
        return
    reading, writing = os.pipe()
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(_python_alone("stdout", writing))
        terminal = cleanup.enter_context(_python_alone("stderr", writing))
        os.close(writing)
        reader = threading.Thread(
            target=_relay, args=(reading, terminal, explain), name="native-output", daemon=True
        )
        reader.start()
        cleanup.callback(_delay_aborts())
        yield
    # No end of the pipe is open for writing, unless a child process has it.
    reader.join(2 * _QUIET_SECONDS)


@contextlib.contextmanager
def _python_alone(name: str, target: int) -> Iterator[int]:
    """Leads the descriptor of a standard stream to `target`, and Python's stream past it.

    Yields:
        A descriptor of what the stream led to before; it stays open.
    """
    stream = getattr(sys, name)
    number = {"stdout": 1, "stderr": 2}[name]
    stream.flush()
    before = os.dup(number)
    own = None
    if _has_descriptor(stream, number):
        own = open(  # noqa: SIM115
            os.dup(before),
            "w",
            buffering=1 if stream.line_buffering else -1,
            encoding=stream.encoding,
            errors=stream.errors,
        )
        setattr(sys, name, own)
    os.dup2(target, number)
    try:
        yield before
    finally:
        if own is not None:
            setattr(sys, name, stream)
            own.close()
        os.dup2(before, number)


def _has_descriptor(stream: object, number: int) -> bool:
    try:
        return stream.fileno() == number  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, OSError, ValueError):
        return False


def _delay_aborts() -> Callable[[], None]:
    """Makes ``sleep`` the handler of SIGABRT; returns a function that restores the default."""
    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    previous = library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))
    return lambda: library.signal(signal.SIGABRT, previous)


def _relay(reading: int, terminal: int, explain: Callable[[str], None]) -> None:
    """Copies lines to the terminal, except for a fatal message that `explain` recognises."""
    fatal, begun = "", ""  # `begun` is a line without its end.
    with open(reading, "rb", buffering=0) as pipe:
        while True:
            quiet = not select.select([pipe], [], [], _QUIET_SECONDS)[0]
            content = b"" if quiet else pipe.read(1 << 16)
            *lines, begun = (begun + content.decode(errors="replace")).splitlines(True) or [""]
            if begun.endswith("\n") or quiet or not content:
                lines, begun = [*lines, begun], ""
            for line in lines:
                if fatal or _FATAL.match(line):
                    fatal += line
                elif not line.startswith(_NOISE):
                    _write(terminal, line.encode())
            if fatal and (_TRACE in fatal or not content):
                explain(fatal.split(_TRACE)[0])
                _write(terminal, fatal.encode())
                fatal = ""
            if not (quiet or content):
                return


def _write(descriptor: int, content: bytes) -> None:
    with contextlib.suppress(OSError):  # A terminal may be gone.
        while content:
            content = content[os.write(descriptor, content) :]
