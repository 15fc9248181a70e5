"""Bounded reading of files that the user names.

A path may lead to a device, a FIFO, a socket or a file without end; opening or reading one of these
may block or fill the memory. Every reader of user-named files therefore opens them here.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import pickletools
import stat
import zipfile
from pathlib import Path
from typing import IO, Any, cast

READ_LIMIT = 4 << 30
"""Most bytes that `read_file` takes into memory by default."""
TEXT_LIMIT = 256 << 20
"""Most bytes of a text file, such as JSON."""

_KINDS = (
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)


def _check_regular(mode: int, path: Path | str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for test, name in _KINDS if test(mode)), "special file")
    raise OSError(errno.EINVAL, f"it is a {kind}, expected a regular file", str(path))


def check_file(path: Path | str) -> None:
    """Checks, without opening it, that a path leads to a regular file, also through links.

    For files that a library opens by itself.

    Raises:
        OSError: the file does not exist, cannot be reached, or is a folder, device, FIFO or socket;
            `strerror` says which.
    """
    try:
        _check_regular(os.stat(path).st_mode, path)
    except ValueError as error:  # A zero byte in the path.
        raise OSError(errno.EINVAL, str(error), str(path)) from error


def open_file(path: Path | str) -> io.BufferedReader:
    """Opens a regular file for reading.

    Raises:
        OSError: as `check_file`.
    """
    # Opening a device may act on it, hence the check before; the file may be replaced by a FIFO in
    # between, hence the flag and the check after.
    check_file(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
        return cast(io.BufferedReader, os.fdopen(descriptor, "rb"))
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path | str, *, limit: int = READ_LIMIT) -> bytes:
    """Reads a whole regular file.

    Args:
        path: file to read.
        limit: most bytes that the file may have.

    Raises:
        OSError: as `check_file`, or the file is larger than `limit`.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= limit:
            # The size of a file of the kernel is 0, and a file may grow.
            content = file.read(max(size, 1 << 20) + 1)
            while len(content) <= limit and (piece := file.read(1 << 20)):
                content += piece
            if len(content) <= limit:
                return content
            size = len(content)
    raise OSError(
        errno.EFBIG, f"it has {size:,} bytes or more, expected at most {limit:,}", str(path)
    )


def file_sha256(path: Path | str) -> str:
    """Returns the sha256, hex, of a regular file of any size.

    Raises:
        OSError: as `check_file`.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(text: str | bytes) -> Any:
    """Parses JSON; unlike `json.loads`, every defect is a `ValueError` and NaN is one.

    Raises:
        ValueError: the text is empty, not UTF-8, not JSON, nested too deeply, holds NaN or an
            infinity, or has a name twice in one object; the message is a clause about the file.
    """
    if not text.strip():
        raise ValueError("it is empty")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON at line {error.lineno}: {error.msg}") from error
    except ValueError as error:
        if "digits" in str(error):  # Python refuses to convert thousands of digits.
            raise ValueError("it has a number of thousands of digits") from error
        raise


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:40]} is out of the range of numbers")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} is there twice")
    return found


def read_json_file(path: Path | str, *, limit: int = TEXT_LIMIT) -> Any:
    """Reads a JSON file, see `read_file` and `parse_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON.
    """
    return parse_json(read_file(path, limit=limit))


def check_unpacked_size(archive: zipfile.ZipFile, *, limit: int = READ_LIMIT) -> None:
    """Checks the size that the members of a zip archive unpack to, before unpacking.

    `zipfile` unpacks no more of a member than its directory says.

    Raises:
        ValueError: the members are larger than `limit` together.
    """
    size = sum(member.file_size for member in archive.infolist())
    if size > limit:
        raise ValueError(f"it unpacks to {size:,} bytes, expected at most {limit:,}")


def check_pickle(file: IO[bytes]) -> None:
    """Checks one pickle for instructions that take memory which the file does not have.

    An unpickler reserves memory up to the largest number under which a pickle stores a value, so
    these numbers must not exceed the number of instructions. Afterwards the file is where it was.

    Raises:
        ValueError: the pickle is damaged or has such an instruction.
    """
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file), 1):
        if opcode.name not in ("PUT", "BINPUT", "LONG_BINPUT"):
            continue
        if argument is None or argument > count:
            raise ValueError(f"it stores value number {argument} after {count} instructions")
    file.seek(start)
