"""Small sets inside this distribution, as official files, for runs without a data root."""

from __future__ import annotations

from pathlib import Path

from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError
from adaptive_nets.data.official import OfficialCopy, find_official

FOLDER = Path(__file__).parent
EMBEDDED = ("mnist", "digits", "four_shapes")
"""Sets that come with the distribution."""


def find_embedded(info: DatasetInfo, folder: Path = FOLDER) -> OfficialCopy | None:
    """Finds the official files that come with this distribution.

    Args:
        info: The set.
        folder: Where the distribution keeps them, laid out as a data root.

    Returns:
        The files; None if this set does not come with the distribution.

    Raises:
        AbsentDataError: Files that should be there are missing.
        DamagedDataError: The folder cannot be read.
    """
    if info.name not in EMBEDDED:
        return None
    copy = find_official(info, folder)
    if copy is None or copy.missing:
        there = 0 if copy is None else len(copy.paths)
        raise AbsentDataError(
            f"{info.name}: {there} of {len(info.files)} files are in {folder / info.name}, where "
            "this distribution keeps them; install adaptive-nets again, or name a data root that "
            "has them with --data-dir"
        )
    return copy
