"""What can be wrong with data on disk, told apart so that `data check` can name a set's state."""

from __future__ import annotations

from pathlib import Path

from adaptive_nets.runtime.errors import UserError


class AbsentDataError(UserError):
    """Nothing of the set, or of the part that was asked for, is there."""


class PartialDataError(UserError):
    """Some of the set's files are there and others are missing."""


class DamagedDataError(UserError):
    """A file is there, but it is not what the set's file should be, or it cannot be read."""


class AlreadyImportedError(UserError):
    """The set was imported before and is whole, so there was nothing to do."""


def reimport_hint(name: str, folder: Path) -> str:
    """Says what to do about a prepared set that cannot be used.

    Args:
        name: the set.
        folder: where it lies.

    Returns:
        The end of an error message.
    """
    return f"delete {folder} and run `adaptive-nets data import {name} PATH`"
