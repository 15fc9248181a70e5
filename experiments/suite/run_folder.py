"""Folder of a run: which run it belongs to, and what is left of a refused or earlier one."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import LOCK, write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object
from experiments.suite import config as config_lib
from experiments.suite.experiment import Experiment
from experiments.suite.run_inputs import RUN_FILE, resolve_all

_SEED = re.compile(r"seed\d+")


def _seeds(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if _SEED.fullmatch(path.name)]


def _is_started(directory: Path) -> bool:
    return any(not seed.is_dir() or any(seed.iterdir()) for seed in _seeds(directory))


@contextlib.contextmanager
def claimed_directory(
    directory: Path, experiment: Experiment, config: Any, *, preset: str
) -> Iterator[None]:
    """Writes `RUN_FILE` into the folder of a run, or checks that it belongs to this run.

    A run that stops before it has written anything of a seed, such as one refused for a flag, takes
    its file and its empty folders with it.

    Args:
        directory: folder of the run.
        experiment: experiment of the run.
        config: configuration of the run.
        preset: name of its preset.

    Raises:
        UserError: the folder holds another experiment, the same one with other values, or files
            that are not of a run.
    """
    _claim(directory, experiment, config, preset=preset)
    try:
        yield
    except BaseException:
        if not _is_started(directory):
            with contextlib.suppress(OSError):
                for seed in _seeds(directory):
                    seed.rmdir()
                (directory / RUN_FILE).unlink()
        raise


def _claim(directory: Path, experiment: Experiment, config: Any, *, preset: str) -> None:
    # The identity has the inputs of seed 0; those of other seeds are in their records.
    identity = config_lib.identity(config, resolve_all(config, seed=0))
    path = directory / RUN_FILE
    if os.path.lexists(path) and _is_started(directory):
        there = read_json_object(
            path,
            remedy="choose another folder with --out, or pass --fresh to start from step 0",
            entries={"experiment": str, "identity": dict},
        )
        _check_same_run(directory, there, experiment, identity)
        return
    ours = {LOCK, RUN_FILE, *(seed.name for seed in _seeds(directory))}
    foreign = sorted(p.name for p in directory.iterdir() if p.name not in ours)
    if _is_started(directory) and not foreign:
        raise UserError(
            f"--out is {directory}, which holds a run without its {RUN_FILE}; choose another "
            "folder, or pass --fresh to start from step 0"
        )
    if foreign:
        raise UserError(
            f"--out is {directory}, which holds other files ({foreign[0]}); "
            "expected an empty folder or the folder of a run"
        )
    write_json_atomically(
        path, {"experiment": experiment.id, "preset": preset, "identity": identity}
    )


def _check_same_run(
    directory: Path, there: dict[str, Any], experiment: Experiment, identity: dict[str, Any]
) -> None:
    if there["experiment"] not in (experiment.id, *experiment.aliases):
        raise UserError(
            f"--out is {directory}, which holds {there['experiment']}; expected an empty folder or "
            f"one of {experiment.id}"
        )
    values = there["identity"]
    changed = config_lib.differences(values, identity)
    if changed:
        name = changed[0]
        old, new = values.get(name, "absent"), identity.get(name, "absent")
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{directory} holds a run with {config_lib.flag(name)} {old!r}, this one has "
            f"{new!r}{more}; choose another folder with --out, or give the old values to resume"
        )


def set_aside(directory: Path) -> Path | None:
    """Moves the run in a folder to a new folder beside it; returns that, None if there is no run.

    Args:
        directory: folder of a run, locked by this process.

    Raises:
        UserError: the folder holds files that are not of a run.
    """
    content = [path for path in directory.iterdir() if path.name != LOCK]
    if not content:
        return None
    if not os.path.lexists(directory / RUN_FILE) and not all(
        _SEED.fullmatch(path.name) for path in content
    ):
        raise UserError(
            f"--fresh: {directory} holds other files ({sorted(p.name for p in content)[0]}); "
            "expected the folder of a run"
        )
    # An absolute path has a name, also where the folder is given as ".".
    place = Path(os.path.abspath(directory))
    folders = (place.with_name(f"{place.name}.earlier-{n}") for n in itertools.count(1))
    target = next(folder for folder in folders if not os.path.lexists(folder))
    target.mkdir()
    for path in content:
        shutil.move(path, target / path.name)
    return target
