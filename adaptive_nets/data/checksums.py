"""Checksums of a prepared set's files, which name a file that has changed."""

from __future__ import annotations

import json
from pathlib import Path

from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError, reimport_hint
from adaptive_nets.data.folders import file_digest, list_names, read_json

CHECKSUMS = "checksums.json"


def check_sums(folder: Path, info: DatasetInfo) -> int:
    """Compares every file with the sums stored at import.

    Sets prepared by TFDS itself have no such sums; array_record's own checksums detect corruption.

    Args:
        folder: folder of the version.
        info: entry of the set.

    Returns:
        Number of files checked.

    Raises:
        DamagedDataError: a file is missing or has changed.
    """
    if CHECKSUMS not in list_names(folder):
        return 0
    path = folder / CHECKSUMS
    sums = read_json(path, remedy=reimport_hint(info.name, folder))
    if not isinstance(sums, dict) or not sums:
        raise DamagedDataError(
            f"{path}: damaged, it holds no checksums; {reimport_hint(info.name, folder)}"
        )
    for name, expected in sums.items():
        if Path(name).name != name:
            raise DamagedDataError(
                f"{path}: damaged, it names {name!r}, which is not a file beside it; "
                f"{reimport_hint(info.name, folder)}"
            )
        try:
            found = file_digest(folder / name)
        except AbsentDataError as error:
            raise DamagedDataError(
                f"{folder / name} is missing, expected it beside {CHECKSUMS}; "
                f"{reimport_hint(info.name, folder)}"
            ) from error
        if found != expected:
            raise DamagedDataError(
                f"{folder / name}: sha256 is {found}, expected {expected}; it has changed since it "
                f"was imported, {reimport_hint(info.name, folder)}"
            )
    return len(sums)


def write_sums(folder: Path) -> None:
    """Stores the sums that `check_sums` compares with.

    Args:
        folder: folder of the version, with all files written.
    """
    sums = {name: file_digest(folder / name) for name in sorted(list_names(folder) - {CHECKSUMS})}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")
