"""Access to folders and files, with one-line errors for the user."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import (
    READ_LIMIT,
    TEXT_LIMIT,
    check_file,
    file_sha256,
    parse_json,
    read_file,
)

ROOT_VARIABLE = "ADAPTIVE_NETS_DATA"
DEFAULT_ROOT = "~/.cache/adaptive_nets"


def data_root(flag: str | Path | None = None, *, must_exist: bool = True) -> Path:
    """Returns the folder that holds the data sets.

    Args:
        flag: value of `--data-dir`; if None or empty, $ADAPTIVE_NETS_DATA is used, and without it
            ~/.cache/adaptive_nets.
        must_exist: whether a requested folder must exist; the default folder need not.

    Returns:
        The data root.

    Raises:
        UserError: the requested folder is missing, is a file or cannot be read.
    """
    variable = os.environ.get(ROOT_VARIABLE, "")
    if flag is not None and str(flag):
        chosen, said_by = str(flag), "--data-dir"
    elif variable:
        chosen, said_by = variable, ROOT_VARIABLE
    else:
        chosen, said_by = DEFAULT_ROOT, "the default data root"
    try:
        root = Path(chosen).expanduser()
        if root.is_dir():
            os.listdir(root)
        elif root.exists():
            raise UserError(
                f"{said_by} {root} is a file; expected the folder that holds the data sets"
            )
        elif must_exist and said_by != "the default data root":
            raise UserError(
                f"{said_by} {root} does not exist; expected the folder that holds the data sets: "
                "create it or name another"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{said_by} {chosen} cannot be read: {error_summary(error)}; "
            "expected a folder that you may read"
        ) from error
    return root


def list_names(folder: str | Path) -> frozenset[str]:
    """Lists a folder.

    Args:
        folder: folder, which may be missing.

    Returns:
        Names in the folder; empty if it is missing or not a folder.

    Raises:
        DamagedDataError: the folder exists but cannot be read.
    """
    folder = Path(folder)
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DamagedDataError(
            f"{folder} cannot be read: {error_summary(error)}; "
            "give yourself permission to read it or name another data root"
        ) from error


def read_bytes(path: str | Path, *, limit: int = READ_LIMIT) -> bytes:
    """Reads a whole file.

    Args:
        path: file to read.
        limit: most bytes that the file may have.

    Returns:
        Content of the file.

    Raises:
        AbsentDataError: the file does not exist.
        DamagedDataError: the path is not a regular file, cannot be read or is larger.
    """
    path = Path(path)
    with _naming_data_file(path):
        return read_file(path, limit=limit)


def file_digest(path: str | Path) -> str:
    """Computes the sha256, hex, of a file of any size.

    Raises:
        AbsentDataError: the file does not exist.
        DamagedDataError: the path is not a regular file or cannot be read.
    """
    path = Path(path)
    with _naming_data_file(path):
        return file_sha256(path)


@contextlib.contextmanager
def _naming_data_file(path: Path) -> Iterator[None]:
    """Converts an error of reading to one that names the data file."""
    try:
        yield
    except FileNotFoundError as error:
        raise AbsentDataError(f"{path} does not exist; expected a data file") from error
    except OSError as error:
        raise DamagedDataError(
            f"{path} cannot be read: {error_summary(error)}; expected a data file that you may read"
        ) from error


def check_files(folder: str | Path) -> None:
    """Checks that a folder holds no device, FIFO or socket, for libraries that open its files.

    Raises:
        DamagedDataError: a path in the folder is one, or a link that leads nowhere.
    """
    folder = Path(folder)
    for name in sorted(list_names(folder)):
        path = folder / name
        if path.is_dir():
            continue
        try:
            check_file(path)
        except OSError as error:
            raise DamagedDataError(
                f"{path} cannot be read: {error_summary(error)}; expected a data file"
            ) from error


def read_json(path: str | Path, *, remedy: str) -> Any:
    """Reads a JSON file.

    Args:
        path: file to read.
        remedy: remedy for a defective file, the end of the error message.

    Returns:
        The parsed value.

    Raises:
        DamagedDataError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        return parse_json(read_bytes(path, limit=TEXT_LIMIT))
    except AbsentDataError as error:
        raise DamagedDataError(
            f"{path} is missing, expected it in a prepared set; {remedy}"
        ) from error
    except ValueError as error:
        raise DamagedDataError(
            f"{path}: damaged, expected JSON ({error_summary(error)}); {remedy}"
        ) from error


def error_summary(error: BaseException) -> str:
    """Summarises an exception in a few words.

    Args:
        error: exception to summarise.

    Returns:
        The operating system's message without the path, or else the first line of the message.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
