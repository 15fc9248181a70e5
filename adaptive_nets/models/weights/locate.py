"""The file that holds the trained network of a run.

A run is a folder with ``run.json`` and one folder ``seedN`` for each seed. A finished seed has a
``record.json`` and, where its experiment trains a network, the network beside it.
"""

from __future__ import annotations

import re
from pathlib import Path

from adaptive_nets.models.weights.files import is_native_format
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import check_file

RECORD = "record.json"
NETWORK_FILES = ("pruned.safetensors", "network.safetensors")
"""Names of exported networks, the preferred one first."""

_SEED = re.compile(r"seed(\d+)")
_EXPECTED = "the folder of a finished run, of one of its seeds, or a file that a run exported"

_NO_NETWORK = (
    "the experiment of this run exports none; choose a run that trains one, with "
    f"{NETWORK_FILES[1]} in the folder of a seed"
)


def find_network(path: str | Path) -> Path:
    """Finds the trained network of a run.

    Args:
        path: Folder of a run, whose first finished seed counts; folder of a seed; or an exported
            file.

    Returns:
        The file, in the format of `save_network`; ``pruned.safetensors`` where both exist.

    Raises:
        UserError: The path does not exist, the run is not finished or exports no network, or the
            file was written by another program.
    """
    path = Path(path).expanduser()
    if path.exists() and not path.is_dir():
        return _check_file(path)
    if not path.is_dir():
        raise UserError(f"no run in {path}: it does not exist; expected {_EXPECTED}")
    found = _network_in(path)
    if found is not None:
        return found
    if (path / RECORD).is_file():
        _refuse_several(path, path)
        raise UserError(f"no network in {path}: {_NO_NETWORK}")
    if _SEED.fullmatch(path.name) and any(path.iterdir()):
        raise UserError(f"the run in {path} is not finished; the command that began it resumes it")
    return _network_of_seeds(path)


def _network_of_seeds(folder: Path) -> Path:
    seeds = [child for child in folder.iterdir() if _SEED.fullmatch(child.name) and child.is_dir()]
    finished = sorted(
        (seed for seed in seeds if (seed / RECORD).is_file()), key=lambda seed: int(seed.name[4:])
    )
    for seed in finished:
        found = _network_in(seed)
        if found is not None:
            return found
    if finished:
        _refuse_several(folder, finished[0])
        raise UserError(f"no network in {folder}: {_NO_NETWORK}")
    if seeds:
        raise UserError(
            f"the run in {folder} is not finished; the command that began it resumes it"
        )
    # A run lies in ID/PRESET unless its command said otherwise.
    below = [*folder.glob(f"*/seed*/{RECORD}"), *folder.glob(f"*/*/seed*/{RECORD}")]
    runs = sorted({path.parent.parent.relative_to(folder).as_posix() for path in below})
    if runs:
        more = f" ({len(runs)} runs are in it)" if len(runs) > 1 else ""
        raise UserError(f"no run in {folder}, but in folders below{more}; try {folder / runs[0]}")
    raise UserError(f"no run in {folder}; expected {_EXPECTED}")


def _refuse_several(folder: Path, seed: Path) -> None:
    """Raises an error that names the networks of a seed that trained several."""
    names = sorted(child.name for child in seed.iterdir() if child.is_dir() and _network_in(child))
    if names:
        raise UserError(
            f"{folder} holds several networks ({', '.join(names)}); name one, such as "
            f"{seed / names[0]}"
        )


def _network_in(folder: Path) -> Path | None:
    return next((folder / name for name in NETWORK_FILES if (folder / name).is_file()), None)


def _check_file(path: Path) -> Path:
    try:
        check_file(path)
    except OSError as error:
        raise UserError(f"no run in {path}: {error.strerror}; expected {_EXPECTED}") from error
    if is_native_format(path):
        return path
    if path.name in (RECORD, "run.json"):
        raise UserError(f"{path} is no network; name the folder that it is in")
    raise UserError(
        f"{path} was not exported by a run; a PyTorch or safetensors file of another tool needs "
        "the name of its network: adaptive-nets predict --model NAME --weights FILE"
    )
