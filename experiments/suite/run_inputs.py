"""Run inputs: weights or an earlier run that a run starts from.

A configuration names a run input in a string field annotated with `RunInputField`, or several in a
tuple of strings: the folder of a run or of a seed, ``FOLDER@STEP`` for a checkpoint, a file that a
run exported, or a PyTorch or safetensors file of another tool. Only this module resolves it. The
digest of its content is part of the run's identity and of its record; the path, which is valid on
one machine only, is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import check_file, file_sha256, read_json_file

if TYPE_CHECKING:
    from adaptive_nets.models.weights import StoredNetwork

RANDOM = "random"
RUN_FILE = "run.json"
TRAIN = "train"
"""Field of a configuration with its `TrainConfig`, whose groups appear without a prefix."""

Kind = Literal["run", "network", "weights", "checkpoint", "random"]
Role = Literal["required", "optional", "resumed"]


@dataclasses.dataclass(frozen=True)
class RunInputField:
    """Marks a string field of a configuration as a run input, as metadata of ``Annotated``.

    Attributes:
        role: "required" if the experiment cannot run without it; "optional" if it changes the
            recipe; "resumed" if it only saves work that the run would repeat, in which case the
            identity does not depend on it.
        part: "network" for trained weights, else the name of a folder within a seed's folder.
        random: whether the word "random" is accepted, for an untrained network.
        any_seed: whether seed 0 of an earlier run serves a seed that it lacks; a network always
            does.
    """

    role: Role = "optional"
    part: str = "network"
    random: bool = False
    any_seed: bool = False


@dataclasses.dataclass(frozen=True)
class RunInput:
    """Resolved run input.

    Attributes:
        flag: name of its field, such as "perforation.source".
        kind: "run" for a seed of a run, "network" for a file that a run exported, "weights" for a
            file of another tool, "checkpoint" for one step of a run, or "random".
        path: path of the file or folder.
        digest: digest of its content, 16 hexadecimal digits.
        experiment: id of the experiment of the earlier run; None if unknown.
        seed: seed of the earlier run; None if unknown.
        step: step of the checkpoint; None for other kinds.
    """

    flag: str
    kind: Kind
    path: Path
    digest: str
    experiment: str | None = None
    seed: int | None = None
    step: int | None = None

    def to_record(self) -> dict[str, Any]:
        """Returns the entry of a record: every attribute but the path."""
        values = dataclasses.asdict(self)
        del values["path"]
        return values


def fields_of(config: Any, prefix: str = "") -> dict[str, tuple[RunInputField, str]]:
    """Returns the run input fields of a configuration: flag -> (field, value).

    A field of several run inputs, a tuple, has an entry ``flag[i]`` for each.
    """
    found: dict[str, tuple[RunInputField, str]] = {}
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        marks = getattr(hints[field.name], "__metadata__", ())
        mark = next((m for m in marks if isinstance(m, RunInputField)), None)
        if mark is not None and isinstance(value, tuple):
            found |= {f"{prefix}{field.name}[{i}]": (mark, item) for i, item in enumerate(value)}
        elif mark is not None:
            found[prefix + field.name] = (mark, value)
        elif dataclasses.is_dataclass(value):
            inner = "" if field.name == TRAIN else f"{field.name}."
            found |= fields_of(value, prefix + inner)
    return found


def replace_path(values: dict[str, Any], name: str, digest: str) -> None:
    """Replaces the path of a run input by a digest.

    Args:
        values: values of a configuration by name, changed in place.
        name: name of the value, with ``[i]`` for one of several, see `fields_of`.
        digest: digest of the content.
    """
    field, _, index = name.rstrip("]").partition("[")
    if index:
        values[field][int(index)] = digest
    else:
        values[field] = digest


def resolve_all(config: Any, *, seed: int) -> dict[str, RunInput]:
    """Returns every run input that a configuration names, by flag.

    Args:
        config: configuration of an experiment.
        seed: seed of the run; selects the same seed of an earlier run with several seeds.

    Raises:
        UserError: a run input does not exist or is not of the kind that its flag accepts.
    """
    return {
        flag: resolve(value, field, flag=flag, seed=seed)
        for flag, (field, value) in fields_of(config).items()
        if value
    }


def resolve(where: str | Path, field: RunInputField, *, flag: str, seed: int) -> RunInput:
    """Resolves a run input.

    Args:
        where: value of the flag.
        field: field that describes the accepted values.
        flag: name of the field, for messages.
        seed: seed of the run.

    Raises:
        UserError: the run input does not exist or is not of the kind that the flag accepts.
    """
    name = "--" + flag.partition("[")[0].replace("_", "-")
    text = str(where)
    if text == RANDOM and field.random:
        return RunInput(flag, "random", Path(), RANDOM)
    folder, _, step = text.rpartition("@")
    if folder and step.isdigit() and not Path(text).exists() and field.part == "network":
        return _checkpoint(Path(folder), int(step), name, flag, seed)
    path = Path(text)
    expected = _expectation(field)
    if not path.exists():
        raise UserError(f"{name} is {text!r}, which does not exist; expected {expected}")
    if not path.is_dir():
        try:
            check_file(path)
        except OSError as error:
            raise UserError(f"{name} is {text!r}: {error.strerror}; expected {expected}") from error
        if field.part != "network":
            raise UserError(f"{name} is {text!r}, which is a file; expected {expected}")
        from adaptive_nets.models.weights.files import is_native_format

        kind: Kind = "network" if is_native_format(path) else "weights"
        folder = _seed_folder_above(path) if kind == "network" else None
        experiment, number = _origin(folder) if folder else (None, None)
        return RunInput(flag, kind, path, _digest([path]), experiment, number)
    or_first = field.any_seed or field.part == "network"
    folder_of_seed = _seed_folder(path, seed, or_first=or_first)
    if field.part == "network":
        from adaptive_nets.models.weights.locate import find_network

        try:
            found = find_network(folder_of_seed)
        except UserError as error:
            raise UserError(
                f"{name} is {text!r}, which holds no trained network ({error}); expected {expected}"
            ) from error
        files = [found]
    else:
        found = folder_of_seed / field.part
        files = sorted(p for p in found.rglob("*") if p.is_file()) if found.is_dir() else []
        if not files:
            raise UserError(
                f"{name} is {text!r}, which holds no {field.part} of seed {seed}; "
                f"expected {expected}"
            )
    experiment, number = _origin(folder_of_seed)
    return RunInput(flag, "run", found, _digest(files), experiment, number)


def load_network(found: RunInput, model: str | None = None) -> StoredNetwork:
    """Loads a trained network with the normalisation of its inputs.

    Args:
        found: run input from `resolve`, a run or a file.
        model: expected name of the network in the zoo; None accepts any.

    Raises:
        UserError: the network cannot be read, is another one, or is a checkpoint.
    """
    from adaptive_nets.models.weights import files
    from adaptive_nets.models.weights import load_network as read

    flag = "--" + found.flag.replace("_", "-")
    if found.kind == "random":
        raise UserError(f"{flag} is {RANDOM!r}; expected trained weights for this experiment")
    if found.kind == "checkpoint":
        raise UserError(
            f"{flag} is a checkpoint of step {found.step}, which does not store the normalisation "
            "of its inputs; expected the folder of a finished run, or a weights file"
        )
    if found.kind != "weights":
        stored = read(found.path)
        _check_model(flag, stored.model, model)
        return stored
    if model is None:
        raise UserError(
            f"{flag} is {str(found.path)!r}, a file that does not name its network; "
            "expected a run, or a file that a run exported"
        )
    normalisation = files.resolve_normalisation(model, None, None)
    try:
        return files.load_foreign(found.path, model, normalisation=normalisation)
    except UserError as error:
        raise UserError(f"{flag} holds no network {model!r}: {error}") from error


def load_variables(found: RunInput, model: str | None = None) -> dict[str, Any]:
    """Loads the variables of a trained network or of a checkpoint.

    Args:
        found: run input from `resolve`, not "random".
        model: expected name of the network in the zoo; None accepts any.

    Returns:
        {"params": ..., other collections}, NumPy arrays.

    Raises:
        UserError: the variables cannot be read, or are of another network.
    """
    if found.kind != "checkpoint":
        return load_network(found, model).variables
    from adaptive_nets.training.checkpoint import read_variables

    assert found.step is not None
    name = str(training_of(found).get("model.name", "unknown"))
    _check_model("--" + found.flag.replace("_", "-"), name, model)
    return read_variables(found.path, found.step)


def training_of(found: RunInput) -> dict[str, Any]:
    """Returns the identity of the run that a checkpoint is of; see `config.identity`."""
    return _identity(found.path.parent)


def _check_model(flag: str, there: str, expected: str | None) -> None:
    from adaptive_nets.models.registry import model_entry

    if expected is not None and there != model_entry(expected).name:
        raise UserError(
            f"{flag} holds the network {there!r}; expected {model_entry(expected).name!r}"
        )


def _expectation(field: RunInputField) -> str:
    if field.part != "network":
        return f"the folder of a run with a {field.part}"
    also = ", or 'random' for an untrained network" if field.random else ""
    return f"the folder of a finished run, FOLDER@STEP of a checkpoint, or a weights file{also}"


def _seed_folder(path: Path, seed: int, *, or_first: bool) -> Path:
    """Returns the folder of a seed in a run; the path itself if it is no folder of a run.

    Args:
        path: Folder of a run or of a seed.
        seed: Seed that is wanted.
        or_first: Take seed 0 if the run lacks the seed.
    """
    if (path / f"seed{seed}").is_dir() or not any(path.glob("seed*")):
        candidate = path / f"seed{seed}"
        return candidate if candidate.is_dir() else path
    return path / "seed0" if or_first else path / f"seed{seed}"


def _seed_folder_above(path: Path) -> Path | None:
    """Returns the folder of a seed of a run that a file lies in, such as seed0/tau0.5/FILE."""
    parents = path.absolute().parents
    return next((p for p in parents[:3] if (p.parent / RUN_FILE).is_file()), None)


def _checkpoint(folder: Path, step: int, name: str, flag: str, seed: int) -> RunInput:
    seed_folder = _seed_folder(folder, seed, or_first=True)
    found = seed_folder / "checkpoints"
    if not (found / str(step)).is_dir():
        steps = sorted(int(p.name) for p in found.glob("*") if p.name.isdigit())
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"{name} is '{folder}@{step}', which has no checkpoint of step {step}; expected one of "
            f"its steps: {there}"
        )
    files = sorted(p for p in (found / str(step)).rglob("*") if p.is_file())
    experiment, number = _origin(seed_folder)
    return RunInput(flag, "checkpoint", found, _digest(files), experiment, number, step)


def _identity(seed_folder: Path) -> dict[str, Any]:
    try:
        content = read_json_file(seed_folder.parent / RUN_FILE)
        identity = content["identity"]
        return identity if isinstance(identity, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _origin(seed_folder: Path) -> tuple[str | None, int | None]:
    """Returns experiment and seed of a run from its folder; None if unknown."""
    number = re.fullmatch(r"seed(\d+)", seed_folder.name)
    try:
        content = read_json_file(seed_folder.parent / RUN_FILE)
        experiment = content.get("experiment") if isinstance(content, dict) else None
    except (OSError, ValueError):
        experiment = None
    return (
        experiment if isinstance(experiment, str) else None,
        int(number[1]) if number else None,
    )


def _digest(files: list[Path]) -> str:
    sums = hashlib.sha256()
    for path in files:
        if len(files) > 1:
            sums.update(f"{path.name}\n".encode())
        sums.update(bytes.fromhex(file_sha256(path)))
    return sums.hexdigest()[:16]
