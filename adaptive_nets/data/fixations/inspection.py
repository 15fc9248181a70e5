"""State of the sets with fixations in a data root, for `adaptive-nets data list` and `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_nets.data.errors import AbsentDataError, PartialDataError
from adaptive_nets.data.fixations.sets import TITLES, FixationSet, load_fixations
from adaptive_nets.runtime.errors import UserError

type Fields = dict[str, Any]
"""Attributes of a `check.Finding`."""


def inspect(name: str, root: Path, *, read: bool) -> list[Fields]:
    """Examines a set with fixations.

    Args:
        name: one of `FIXATION_SETS`.
        root: data root.
        read: whether every picture is decoded with its fixations.

    Returns:
        Attributes of its one finding.
    """
    shared = {"name": name, "title": TITLES[name]}
    try:
        found = load_fixations(name, root=root)
        return [{**shared, **_described(found, read=read)}]
    except AbsentDataError as error:
        return [{**shared, "state": "absent", "message": str(error)}]
    except UserError as error:
        state = "partial" if isinstance(error, PartialDataError) else "damaged"
        return [{**shared, "state": state, "message": str(error), "source": "files"}]


def _described(found: FixationSet, *, read: bool) -> Fields:
    if read:
        for number in range(found.size):
            found.read(number)
    single = sum(picture.points is not None for picture in found.pictures)
    holds = f"single fixations of {single:,}" if single else "blurred fixation maps alone"
    remark = "" if found.complete else "; the official set has more"
    how = "every picture decoded" if read else "not read"
    return {
        "state": "ok",
        "message": f"{found.size:,} pictures, {holds}{remark}, {how}",
        "source": "files",
        "form": "fixations",
        "location": found.location,
        "counts": {"pictures": found.size},
        "complete": found.complete,
        "fingerprint": found.fingerprint() if read else None,
    }
