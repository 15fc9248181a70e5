"""Files of arrays that say what their content depends on."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.reading import read_file

IDENTITY = "identity"
"""Name under which a file holds what its content depends on."""


def plain_values(marks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what JSON keeps of an identity."""
    return json.loads(json.dumps(marks))


def check_identity(path: Path, there: Any, marks: Mapping[str, Any]) -> None:
    """Checks that a file is of this run.

    Raises:
        UserError: its identity is another one.
    """
    ours = plain_values(marks)
    if there != ours:
        names = sorted(name for name in {*there, *ours} if there.get(name) != ours.get(name))
        raise UserError(
            f"{path} holds predictions of another {' and '.join(names)}; expected those of this "
            "run: choose another file or remove it"
        )


def read_arrays(path: Path | None, marks: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Reads arrays by name; None if there is no file.

    Raises:
        UserError: the file is damaged or of another identity.
    """
    if path is None or not path.exists():
        return None
    try:
        with np.load(io.BytesIO(read_file(path)), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
            there = json.loads(str(arrays.pop(IDENTITY)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: {error}; remove it to begin again") from error
    check_identity(path, there, marks)
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], marks: Mapping[str, Any]) -> None:
    """Writes arrays by name and their identity, whole or not at all."""
    named: dict[str, Any] = {**arrays, IDENTITY: np.array(json.dumps(plain_values(marks)))}
    content = io.BytesIO()
    np.savez(content, **named)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, content.getvalue())
