"""Run inputs: weights or an earlier run that a run starts from.

A configuration names one by a string field annotated with `RunInputField`: the folder of a run or
of a seed, ``FOLDER@STEP`` for a checkpoint of it, a weights file of ours, or a PyTorch or
safetensors file of another tool. It is resolved here and nowhere else. The digest of what was found
becomes part of the run's identity and of its record; the path, which is of one machine, does not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adaptive_nets.runtime.errors import UserError

if TYPE_CHECKING:
    from adaptive_nets.models.weights import StoredNetwork

RANDOM = "random"
RUN_FILE = "run.json"
TRAIN = "train"
"""Field that holds the training of a configuration; its groups count as the configuration's own."""

Kind = Literal["run", "network", "weights", "checkpoint", "random"]
Role = Literal["required", "optional", "resumed"]


@dataclasses.dataclass(frozen=True)
class RunInputField:
    """Marks a string field of a configuration as a run input, as metadata of ``Annotated``.

    Attributes:
        role: "required": the experiment cannot run without it. "optional": giving it changes the
            recipe. "resumed": the run resumes work that it would otherwise do itself, so that its
            identity does not depend on it.
        part: "network" for trained weights, else the name of a folder within a seed's folder.
        random: Whether the word "random" is accepted, for a network as it is initialised.
    """

    role: Role = "optional"
    part: str = "network"
    random: bool = False


@dataclasses.dataclass(frozen=True)
class RunInput:
    """A run input that was found.

    Attributes:
        flag: Name of its field, such as "perforation.source".
        kind: "run" for a seed of a run, "network" for a file of ours, "weights" for a file of
            another tool, "checkpoint" for one step of a run, or "random".
        path: The file or folder.
        digest: Sixteen hexadecimal digits of its contents.
        experiment: Id of the experiment that it is a run of, where known.
        seed: Seed of that run.
        step: Step of the checkpoint.
    """

    flag: str
    kind: Kind
    path: Path
    digest: str
    experiment: str | None = None
    seed: int | None = None
    step: int | None = None

    def to_record(self) -> dict[str, Any]:
        """Returns what a record keeps of it."""
        values = dataclasses.asdict(self)
        del values["path"]
        return values


def fields_of(config: Any, prefix: str = "") -> dict[str, tuple[RunInputField, str]]:
    """Returns the run inputs that a configuration can name: flag -> (its field, its value)."""
    found: dict[str, tuple[RunInputField, str]] = {}
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        marks = getattr(hints[field.name], "__metadata__", ())
        mark = next((m for m in marks if isinstance(m, RunInputField)), None)
        if mark is not None:
            found[prefix + field.name] = (mark, value)
        elif dataclasses.is_dataclass(value):
            inner = "" if field.name == TRAIN else f"{field.name}."
            found |= fields_of(value, prefix + inner)
    return found


def resolve_all(config: Any, *, seed: int) -> dict[str, RunInput]:
    """Returns every run input that a configuration names, by flag.

    Args:
        config: Configuration of an experiment.
        seed: Seed of the run; of an earlier run with several seeds the same one is taken.

    Raises:
        UserError: One of them does not exist or is not what its flag expects.
    """
    return {
        flag: resolve(value, field, flag=flag, seed=seed)
        for flag, (field, value) in fields_of(config).items()
        if value
    }


def resolve(where: str | Path, field: RunInputField, *, flag: str, seed: int) -> RunInput:
    """Finds a run input.

    Args:
        where: Value of the flag.
        field: What the flag accepts.
        flag: Name of the field, for messages.
        seed: Seed of the run.

    Raises:
        UserError: It does not exist or is not what the flag expects.
    """
    name = "--" + flag.replace("_", "-")
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
    if path.is_file():
        if field.part != "network":
            raise UserError(f"{name} is {text!r}, which is a file; expected {expected}")
        from adaptive_nets.models.weights.files import is_native_format

        kind: Kind = "network" if is_native_format(path) else "weights"
        return RunInput(flag, kind, path, _digest([path]))
    folder_of_seed = _seed_folder(path, seed, or_first=field.part == "network")
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
    """Reads a trained network that says how its inputs are normalised.

    Args:
        found: From `resolve`; a run, or a file.
        model: Name in the zoo of the network that is expected; any network of ours if None.

    Raises:
        UserError: It cannot be read, is of another network, or is a checkpoint.
    """
    from adaptive_nets.models.weights import files
    from adaptive_nets.models.weights import load_network as read

    flag = "--" + found.flag.replace("_", "-")
    if found.kind == "checkpoint":
        raise UserError(
            f"{flag} is a checkpoint of step {found.step}, which does not say how its inputs are "
            "normalised; expected the folder of a finished run, or a weights file"
        )
    if found.kind != "weights":
        stored = read(found.path)
        _check_model(flag, stored.model, model)
        return stored
    if model is None:
        raise UserError(
            f"{flag} is {str(found.path)!r}, a file that does not say which network it is of; "
            "expected a run, or a file that a run exported"
        )
    normalisation = files.resolve_normalisation(model, None, None)
    return files.load_foreign(found.path, model, normalisation=normalisation)


def load_variables(found: RunInput, model: str | None = None) -> dict[str, Any]:
    """Reads the variables of a trained network, those of a checkpoint too.

    Args:
        found: From `resolve`; not "random".
        model: Name in the zoo of the network that is expected; any network of ours if None.

    Returns:
        {"params": ..., other collections}, NumPy arrays.

    Raises:
        UserError: They cannot be read, or are of another network.
    """
    if found.kind != "checkpoint":
        return load_network(found, model).variables
    from adaptive_nets.training.checkpoint import read_variables

    assert found.step is not None
    name = str(training_of(found).get("model.name", "unknown"))
    _check_model("--" + found.flag.replace("_", "-"), name, model)
    return read_variables(found.path, found.step)


def training_of(found: RunInput) -> dict[str, Any]:
    """Returns the values that decided a run, flat, for a checkpoint of it."""
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
    also = ", or 'random' to try out" if field.random else ""
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


def _checkpoint(folder: Path, step: int, name: str, flag: str, seed: int) -> RunInput:
    seed_folder = _seed_folder(folder, seed, or_first=True)
    found = seed_folder / "checkpoints"
    if not (found / str(step)).is_dir():
        steps = sorted(int(p.name) for p in found.glob("*") if p.name.isdigit())
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"{name} is '{folder}@{step}', which has no checkpoint of step {step}; there: {there}"
        )
    files = sorted(p for p in (found / str(step)).rglob("*") if p.is_file())
    experiment, number = _origin(seed_folder)
    return RunInput(flag, "checkpoint", found, _digest(files), experiment, number, step)


def _identity(seed_folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((seed_folder.parent / RUN_FILE).read_text(encoding="utf-8"))
        identity = content["identity"]
        return identity if isinstance(identity, dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _origin(seed_folder: Path) -> tuple[str | None, int | None]:
    """Returns experiment and seed of a run, as its folder tells them."""
    number = re.fullmatch(r"seed(\d+)", seed_folder.name)
    try:
        content = json.loads((seed_folder.parent / RUN_FILE).read_text(encoding="utf-8"))
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
        with path.open("rb") as file:
            sums.update(hashlib.file_digest(file, "sha256").digest())
    return sums.hexdigest()[:16]
