"""Errors of data on disk; their types are the states that `data check` reports."""

from __future__ import annotations

from pathlib import Path

from adaptive_nets.runtime.errors import UserError


class AbsentDataError(UserError):
    """The set, or the requested part of it, is absent."""


class PartialDataError(UserError):
    """Some of the set's files are missing."""


class DamagedDataError(UserError):
    """A file is unreadable or differs from the set's official file."""


class AlreadyImportedError(UserError):
    """The set is already imported and whole."""


def reimport_hint(name: str, folder: Path) -> str:
    """Returns the remedy for an unusable prepared set, the end of an error message.

    Args:
        name: name of the set.
        folder: folder of the set.
    """
    return f"delete {folder} and run `adaptive-nets data import {name} PATH`"
