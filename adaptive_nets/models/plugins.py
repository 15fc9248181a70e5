"""Modules of other distributions, found through entry points."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable


def load_entry_points(group: str, *, discard: Callable[[], None]) -> dict[str, str]:
    """Imports the module of every entry point of a group; a failure does not stop the others.

    Args:
        group: entry-point group, such as ``"adaptive_nets.models"``.
        discard: called after each failure, to remove what the failed module left behind.

    Returns:
        Name of each entry point that failed -> module, distribution and error, in one line. Equal
        names in two distributions are told apart by the module.
    """
    errors: dict[str, str] = {}
    for entry in importlib.metadata.entry_points(group=group):
        try:
            entry.load()
        except Exception as error:  # other people's code may raise anything
            discard()
            name = entry.name if entry.name not in errors else f"{entry.name} ({entry.value})"
            owner = f" of distribution {entry.dist.name}" if entry.dist else ""
            message = " ".join(f"{type(error).__name__}: {error}".split())
            errors[name] = f"module {entry.value}{owner}: {message}"
    return errors
