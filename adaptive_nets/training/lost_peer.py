"""Lost processes of a multi-process run: recognised in errors, explained in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# Words in the errors that JAX's runtime, Gloo and NCCL raise when another process is lost.
_PEER_GONE = re.compile(
    r"gloo|nccl|coordination|connection (reset|closed|refused)|unavailable|deadline_exceeded|"
    r"heartbeat|barrier|socket closed|peer",
    re.IGNORECASE,
)

# Fatal message with which JAX's client ends the process.
_FATAL = re.compile(r"JAX distributed service|coordination ?service", re.IGNORECASE)
_UNHEALTHY = re.compile(r"unhealthy \(stopped sending heartbeats\):\s*((?:\S*\d+[\s,]*)+)")
_TIMED_OUT_TASKS = re.compile(r"timed out task names:\s*((?:\S*\d+[\s,]*)+)", re.IGNORECASE)
_TASK = re.compile(r"(?:task:)?(\d+)(?=[\s,]|$)")
_LEADER = re.compile(r"Failed to send RPC to coordination service|Service/(Heartbeat|PollForError)")


class LostPeerError(Exception):
    """Another process of the run is lost or did not come; the same command may succeed later.

    Attributes:
        processes: indices of the lost processes; empty if they are not known.
        why: what was observed, such as "stopped sending heartbeats".
    """

    def __init__(self, why: str, processes: tuple[int, ...] = ()):
        super().__init__(why)
        self.why, self.processes = why, processes


class CoordinatorAddressError(LostPeerError):
    """The address of process 0 cannot be used, whoever waits there."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the errors that it was raised from, each once."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        yield current
        seen.append(current)
        current = current.__cause__ or current.__context__


def is_lost_peer(error: BaseException) -> bool:
    """Returns whether an error or one of its causes is that of a lost process.

    Errors of the operating system with a file name are not: they are about a disk.
    """
    if any(isinstance(e, OSError) and e.filename is not None for e in causes(error)):
        return False
    return any(
        isinstance(e, LostPeerError) or _PEER_GONE.search(f"{type(e).__name__} {e}")
        for e in causes(error)
    )


def parse_fatal(text: str) -> LostPeerError | None:
    """Translates the fatal message of JAX's client; None for a message about something else."""
    if not _FATAL.search(text):
        return None
    if "RegisterTask" in text or "ShutdownTask" in text:
        tasks = _tasks(_TIMED_OUT_TASKS, text)
        phase = "connect" if "RegisterTask" in text else "finish"
        return LostPeerError(f"did not {phase} in time", tasks)
    tasks = _tasks(_UNHEALTHY, text)
    if tasks:
        return LostPeerError("stopped sending heartbeats", tasks)
    if _LEADER.search(text):
        gone = "Socket closed" in text or "Connection refused" in text or "reset" in text
        return LostPeerError("its connection closed" if gone else "stopped answering", (0,))
    return LostPeerError(brief(text.split("absl::Status:")[-1]))


def _tasks(pattern: re.Pattern[str], text: str) -> tuple[int, ...]:
    found = pattern.search(text)
    return tuple(sorted({int(n) for n in _TASK.findall(found[1])})) if found else ()


def brief(error: BaseException | str) -> str:
    """Returns the first line of an error, short enough for a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def saved_step(folder: Path) -> tuple[int, Path] | None:
    """Returns the newest complete checkpoint below the folder of a run: its step and its folder."""
    steps = [path for path in folder.glob("**/checkpoints/*") if path.name.isdecimal()]
    newest = max(
        steps,
        key=lambda path: (path.parent.stat().st_mtime_ns, str(path.parent), int(path.name)),
        default=None,
    )
    return None if newest is None else (int(newest.name), newest.parent)


def describe(
    error: LostPeerError,
    *,
    process: int | None,
    count: int | None,
    hosts: tuple[str, ...] = (),
    folder: Path | None = None,
    command: str | None = None,
) -> str:
    """Returns the line about a lost process: which one, the step that is safe, how to resume.

    Args:
        error: lost processes and observation.
        process: index of this process, if known.
        count: number of processes of the run, if known.
        hosts: host of every process; empty if not known.
        folder: folder of the run, if it saves any checkpoints.
        command: command of this process.
    """
    me = "this process" if process is None else f"process {process}"
    total = "" if count is None else f" of {count}"
    names = [f"{i} (host {hosts[i]})" if i < len(hosts) else str(i) for i in error.processes]
    if isinstance(error, CoordinatorAddressError):
        line = f"{me}{total} cannot start: {error.why}"
    elif process is not None and error.processes == (process,):
        line = f"{me}{total} was given up by the others: {error.why}"
    elif names:
        noun = "process" if len(names) == 1 else "processes"
        line = f"{me}{total} lost {noun} {', '.join(names)}: {error.why}"
    else:
        line = f"{me}{total} lost another process of the run: {error.why}"
    if folder is not None:
        found = saved_step(folder)
        line += f"; step {found[0]} is saved in {found[1]}" if found else "; no step is saved"
    line += "; start all processes again to resume"
    return f"{line}, this one with: {command}" if command else line
