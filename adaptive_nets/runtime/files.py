"""Atomic file writes, JSON lines and directory locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Writes a file atomically: to a temporary file beside it, flushed to disk, then renamed.

    Raises:
        OSError: the disk is full or the directory is not writable; an existing file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_text_atomically(path: Path, content: str) -> None:
    """Writes UTF-8 text with `write_bytes_atomically`."""
    write_bytes_atomically(path, content.encode())


def write_json_atomically(path: Path, content: Any) -> None:
    """Writes a value as JSON with `write_bytes_atomically`; NaN and infinity raise ValueError."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text_atomically(path, text + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a JSON-lines file up to the first incomplete line; returns [] if it does not exist."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Locks a directory for this process; the operating system releases the lock at process exit.

    Raises:
        UserError: another process holds the lock, or the directory cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("a+")
    except OSError as error:
        raise UserError(
            f"cannot write to {directory}: {error.strerror}; choose another folder with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{directory} is in use by another run; wait for it or choose another folder "
                "with --out"
            ) from error
        yield
