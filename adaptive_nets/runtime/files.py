"""Atomic file writes, and directory locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError

LOCK = ".lock"

# Open file descriptors under other names. A descriptor is written as it is: opening its name again
# would truncate a redirected file, or fail for a socket.
_DESCRIPTOR = re.compile(r"(?:/dev/fd|/proc/self/fd)/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
# Host and process in the name of a temporary file tell a later run whether its writer still lives.
_TEMPORARY = re.compile(r"\..+\.(?P<host>[^/]+)-(?P<process>\d+)-[0-9a-f]{8}\.tmp")
# Age from which a temporary file of another host counts as left behind.
_STALE_SECONDS = 24 * 3600.0


def _descriptor(path: Path | str) -> int | None:
    """Returns the file descriptor that a path such as /dev/stdout names; None for other paths."""
    name = os.path.normpath(path)
    match = _DESCRIPTOR.fullmatch(name)
    return int(match[1]) if match else _STANDARD.get(name)


def is_stream(path: str | Path) -> bool:
    """Returns whether a path is a device, FIFO, socket or open descriptor."""
    path = Path(path)
    if _descriptor(path) is not None:
        return True
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Adds the path to an `OSError` that names none, such as that of a full disk."""
    path = Path(path)
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def write_bytes_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file atomically: to a temporary file beside it, flushed to disk, then renamed.

    An existing file keeps its permissions; a link keeps its place and its target is replaced. Only
    regular files are replaced: a character device, a FIFO with a reader, or an open descriptor such
    as /dev/stdout is written directly.

    Raises:
        OSError: the disk is full, the directory is not writable, or the path is a folder or a block
            device; an existing file is unchanged. The error names the path.
    """
    path = Path(path)
    with naming(path):
        if is_stream(path):
            _write_stream(path, content)
        else:
            _replace_file(path, content)


def _write_stream(path: Path, content: bytes) -> None:
    number = _descriptor(path)
    if number is not None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        with os.fdopen(os.dup(number), "wb") as file:
            file.write(content)
        return
    if stat.S_ISBLK(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is a block device; expected a file", str(path))
    try:
        # Without O_NONBLOCK, a FIFO that nobody reads would wait forever.
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "has no reader; expected a file", str(path)) from error
        raise
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _replace_file(path: Path, content: bytes) -> None:
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; expected a file", str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.name[:100]}.{writer}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                earlier = os.stat(target)
                with contextlib.suppress(PermissionError):
                    os.fchown(handle, earlier.st_uid, earlier.st_gid)
                os.fchmod(handle, stat.S_IMODE(earlier.st_mode))
            os.fsync(handle)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", socket.gethostname())[:40] or "host"


def remove_stale_temporaries(directory: str | Path) -> list[Path]:
    """Removes temporary files of killed processes below a folder; returns their paths.

    A temporary file is one that `write_bytes_atomically` names. It is stale if its process on this
    host has ended, or if it is a day old.
    """
    directory = Path(directory)
    removed = []
    for path in directory.rglob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(OSError):
            old = time.time() - path.stat().st_mtime > _STALE_SECONDS
            if old or (match["host"] == _host() and not _is_alive(int(match["process"]))):
                path.unlink()
                removed.append(path)
    return removed


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_text_atomically(path: str | Path, content: str) -> None:
    """Writes UTF-8 text with `write_bytes_atomically`."""
    path = Path(path)
    write_bytes_atomically(path, content.encode())


def write_json_atomically(path: str | Path, content: Any) -> None:
    """Writes a value as JSON with `write_bytes_atomically`; NaN and infinity raise ValueError."""
    path = Path(path)
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text_atomically(path, text + "\n")


@contextlib.contextmanager
def lock_directory(directory: str | Path, *, flag: str = "--out") -> Iterator[None]:
    """Locks a directory for this process; the operating system releases the lock at process exit.

    If the work fails before it has written anything, the lock file and the directories that were
    created for it are removed again.

    Args:
        directory: folder to lock, created if absent.
        flag: flag that names it, for messages.

    Raises:
        UserError: another process holds the lock, or the directory cannot be created.
    """
    directory = Path(directory)
    absent = [path for path in (directory, *directory.parents) if not path.exists()]
    path = directory / LOCK
    created = not path.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _open_locked(path)
    except BlockingIOError as error:
        raise UserError(
            f"{directory} is in use by another run; wait for it or choose another folder with "
            f"{flag}"
        ) from error
    except OSError as error:
        with contextlib.suppress(OSError):
            for folder in absent:
                folder.rmdir()
        raise UserError(
            f"cannot write to {directory}: {error.strerror}; choose another folder with {flag}"
        ) from error
    with lock:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                if created:
                    path.unlink()
                for folder in absent:
                    folder.rmdir()
            raise


def _open_locked(path: Path) -> Any:
    """Opens and locks a file; one that its last holder removed meanwhile is opened again."""
    while True:
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                    return lock
        except BaseException:
            lock.close()
            raise
        lock.close()
