"""A run to be launched: its arguments as typed, and what a script has to know of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.batch_size import require_divisible_batch
from adaptive_nets.training.config import require
from experiments.launch.quoting import check_form
from experiments.suite import config as config_lib

# Longest name whose pods still have names of at most 63 characters.
_LONGEST_NAME = 50


@dataclasses.dataclass(frozen=True)
class Variant:
    """One run of several that a job starts.

    Attributes:
        flags: further arguments of 'adaptive-nets run'.
        folder: name of its folder below that of the request.
        config: configuration that all arguments give.
    """

    flags: tuple[str, ...]
    folder: str
    config: Any


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """Run to be launched.

    Attributes:
        arguments: arguments of 'adaptive-nets run', as typed.
        config: configuration that they give.
        name: name of the job, a DNS label.
        folder: default folder of the run, relative to the working folder.
        out: value of --out; None if it is not given.
        first_seed: first seed.
        seeds: number of seeds.
        variants: the runs of a sweep; empty for a single run. `arguments` then have no --out.
    """

    arguments: tuple[str, ...]
    config: Any
    name: str
    folder: Path
    out: Path | None
    first_seed: int
    seeds: int
    variants: tuple[Variant, ...] = ()

    @property
    def configs(self) -> tuple[Any, ...]:
        """Configurations of all runs."""
        return tuple(v.config for v in self.variants) if self.variants else (self.config,)

    def variant_words(self, variant: Variant, folder: str) -> list[str]:
        """Returns the arguments that a variant adds; its folder is below `folder`."""
        return [*variant.flags, "--out", f"{folder}/{variant.folder}"]

    def without(self, *flags: str) -> list[str]:
        """Returns the arguments without some flags of one value each."""
        kept: list[str] = []
        skip = False
        for argument in self.arguments:
            name, equals, _ = argument.partition("=")
            found = name.startswith("--") and name[2:].replace("_", "-") in flags
            if not (skip or found):
                kept.append(argument)
            skip = found and not equals
        return kept


def job_name(chosen: str | None, experiment: str, preset: str) -> str:
    """Returns the name of a job: the chosen one, or one made from experiment and preset."""
    if chosen is None:
        label = re.sub(r"[^a-z0-9]+", "-", f"{experiment}-{preset}".lower())
        return label.strip("-")[:_LONGEST_NAME].strip("-")
    check_form(
        "job.name",
        chosen,
        rf"[a-z]([a-z0-9-]{{0,{_LONGEST_NAME - 2}}}[a-z0-9])?",
        f"at most {_LONGEST_NAME} lower-case letters, digits and hyphens, a letter first",
    )
    return chosen


def check_devices(run: RunRequest, devices: int) -> None:
    """Raises a `UserError` unless mesh and training batch of every run fit a number of devices."""
    for config in run.configs:
        _check_devices(config, devices)


def _check_devices(config: Any, devices: int) -> None:
    mesh, data = config_lib.group(config, "mesh"), config_lib.group(config, "data")
    if mesh is None:
        return
    require(
        devices % mesh.model == 0, "mesh.model", mesh.model, f"a divisor of the {devices} devices"
    )
    rest = devices // mesh.model
    require(
        mesh.data in (0, rest), "mesh.data", mesh.data, f"{rest}, since there are {devices} devices"
    )
    require_divisible_batch(data.batch_size, rest, accumulation=getattr(data, "accumulation", 1))


def check_positive(job: object, *names: str) -> None:
    """Raises a `UserError` unless these fields are positive."""
    for name in names:
        value = getattr(job, name)
        require(value > 0, "job." + name.replace("_", "-"), value, "a positive number")


def check_port(port: int) -> None:
    """Raises a `UserError` unless a port exists."""
    require(0 < port < 1 << 16, "job.port", port, "a port from 1 to 65535")


def check_words(job: object, *names: str, form: str, expected: str) -> None:
    """Raises a `UserError` unless these fields are None or have the form of a name."""
    for name in names:
        value = getattr(job, name)
        if value is not None:
            check_form("job." + name.replace("_", "-"), value, form, expected)


def check_program(program: Sequence[str] | str) -> None:
    """Raises a `UserError` for an empty program or one that a shell takes for an option."""
    if not program or str(program).startswith("-"):
        raise UserError(f"--job.program is {program!r}; expected the installed command")
