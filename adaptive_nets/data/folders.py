"""Folders and bytes on disk, with every way they can fail turned into one line for the user."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.runtime.errors import UserError

ROOT_VARIABLE = "ADAPTIVE_NETS_DATA"
DEFAULT_ROOT = "~/.cache/adaptive_nets"


def data_root(flag: str | Path | None = None, *, must_exist: bool = True) -> Path:
    """Decides which folder holds the data sets.

    Args:
        flag: the folder that was asked for (`--data-dir`); None or an empty text for none. Without
            it $ADAPTIVE_NETS_DATA decides, and without that ~/.cache/adaptive_nets.
        must_exist: whether a folder that was asked for has to be there already. The default one
            never has to.

    Returns:
        The folder.

    Raises:
        UserError: the folder that was asked for is missing, is a file or cannot be read.
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


def list_names(folder: Path) -> frozenset[str]:
    """Lists a folder.

    Args:
        folder: a folder that may be missing.

    Returns:
        The names in it; none if it is missing or is no folder.

    Raises:
        DamagedDataError: it is there and cannot be read.
    """
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DamagedDataError(
            f"{folder} cannot be read: {error_summary(error)}; "
            "give yourself permission to read it or name another data root"
        ) from error


def read_bytes(path: Path) -> bytes:
    """Reads a whole file.

    Args:
        path: the file.

    Returns:
        Its bytes.

    Raises:
        AbsentDataError: it is missing.
        DamagedDataError: it is no file or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AbsentDataError(f"{path} does not exist; expected a data file") from error
    except OSError as error:
        raise DamagedDataError(
            f"{path} cannot be read: {error_summary(error)}; expected a data file that you may read"
        ) from error


def read_json(path: Path, *, remedy: str) -> Any:
    """Reads a file that describes other files beside it.

    Args:
        path: the file.
        remedy: what to do if it is no good, the end of the error message.

    Returns:
        What it says.

    Raises:
        DamagedDataError: it is missing, cannot be read or is no JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except AbsentDataError as error:
        raise DamagedDataError(
            f"{path} is missing, expected it in a prepared set; {remedy}"
        ) from error
    except ValueError as error:
        raise DamagedDataError(
            f"{path}: damaged, expected JSON ({error_summary(error)}); {remedy}"
        ) from error


def error_summary(error: BaseException) -> str:
    """Says in a few words what went wrong.

    Args:
        error: what was raised.

    Returns:
        The system's own words without the path where it has any, else the message's first line.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
