"""Completion of the last word of a command line, called by the shells' completion scripts.

Candidates come from the registries at the time of the call, so a new paper, model or flag is
completed without changes here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

# Kind of name that the first positional argument of a command takes.
_POSITIONAL = {
    "show": "experiment",
    "run": "experiment",
    "sweep": "experiment",
    "launch": "experiment",
    "list": "pattern",
    "table": "pattern",
    "report": "pattern",
    "models": "model",
    "evaluate": "model",
    "bench networks": "model",
    "bench adaptive": "model",
    "data check": "data",
    "data build": "data",
    "data import": "data",
}
# Kind of name that the value of a flag takes.
_VALUES = {"data": "data", "data.name": "data", "model.name": "model", "network": "model"}


def _experiments() -> list[str]:
    from experiments.suite.registry import experiments

    return list(experiments())


def _patterns() -> list[str]:
    from experiments.suite.registry import papers

    return [*papers(), *_experiments()]


def _models() -> list[str]:
    from experiments.commands.models import known_models

    return list(known_models())


def _data() -> list[str]:
    from adaptive_nets.data.catalogue import CATALOGUE

    return list(CATALOGUE)


_SOURCES = {
    "experiment": _experiments,
    "pattern": _patterns,
    "model": _models,
    "data": _data,
}


def complete(words: Sequence[str]) -> list[str]:
    """Returns the candidates for the last of the words.

    Args:
        words: words typed after the program's name; the last one is incomplete and may be empty.
    """
    # Bash splits --flag=value into three words.
    *before, last = [word for word in words if word != "="] or [""]
    from experiments.commands.catalogue import COMMANDS

    if not before:
        return _matching(last, [*COMMANDS, "--help", "--version"])
    command, *before = before
    if command not in COMMANDS:
        return []
    if command == "completion":
        from experiments.commands.completion import SHELLS

        return _matching(last, SHELLS) if not before else []
    module = importlib.import_module(f"experiments.commands.{command}")
    forms = getattr(module, "FORMS", None)
    if forms is not None:
        if not before:
            return _matching(last, [*forms, "--help"])
        name, *before = before
        command, form = f"{command} {name}", forms.get(name)
        positional = _POSITIONAL.get(command) or _POSITIONAL.get(command.split()[0])
    else:
        form = getattr(module, command.capitalize(), None)
        positional = _POSITIONAL.get(command)
    flags = _flags(command, form, before)
    if "=" in last and last.startswith("--"):
        flag, last = last.split("=", 1)
        return [f"{flag}={value}" for value in _matching(last, flags.get(flag) or ())]
    if last.startswith("-"):
        return _matching(last, [*flags, "--help"])
    values = flags.get(before[-1]) if before else None
    if values is not None:
        return _matching(last, values)
    if positional and (not before or before[0].startswith("-")):
        return _matching(last, _SOURCES[positional]())
    return []


def _matching(start: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(start)]


def _flags(command: str, form: Any, before: Sequence[str]) -> dict[str, Sequence[str] | None]:
    """Returns the flags of a command with the values they take; None for a flag without value."""
    flags = dict(_flags_of(form)) if form is not None else {}
    if command.startswith("launch "):
        from experiments.commands.run import Run

        flags = {f"--job.{flag[2:]}": values for flag, values in flags.items()}
        flags |= {"--dry-run": None, **_flags_of(Run)}
    if command.split()[0] in ("run", "sweep", "launch"):
        flags |= _config_flags(before)
    return flags


def _config_flags(before: Sequence[str]) -> Mapping[str, Sequence[str] | None]:
    """Returns the presets and the configuration flags of the experiment among the words."""
    from adaptive_nets.runtime.errors import UserError
    from experiments.commands.run import peek_id_and_preset
    from experiments.suite.registry import find_experiment, find_preset

    name, preset = peek_id_and_preset(before)
    try:
        experiment = find_experiment(name or "")
    except UserError:
        return {}
    flags: dict[str, Sequence[str] | None] = {"--preset": tuple(experiment.presets)}
    with contextlib.suppress(UserError):
        flags |= _flags_of(type(find_preset(experiment, preset).config))
    return flags


@functools.cache
def _flags_of(form: Any, prefix: str = "") -> Mapping[str, Sequence[str] | None]:
    """Returns the flags that tyro makes of a dataclass."""
    flags: dict[str, Sequence[str] | None] = {}
    hints = get_type_hints(form, include_extras=True)
    for field in dataclasses.fields(form):
        hint = hints[field.name]
        if "positional" in repr(getattr(hint, "__metadata__", "")).lower():
            continue
        name = prefix + field.name.replace("_", "-")
        group = f"{name}."
        for mark in getattr(hint, "__metadata__", ()):
            # tyro.conf.arg(name="") removes the prefix of a group.
            if getattr(mark, "name", None) == "":
                group = prefix
            hint = getattr(hint, "__origin__", hint)
        if dataclasses.is_dataclass(hint):
            flags |= _flags_of(hint, group)
        elif hint is bool:
            flags[f"--{name}"] = flags[f"--{_negated(name)}"] = None
        else:
            flags[f"--{name}"] = _choices(name, hint)
    return flags


def _negated(name: str) -> str:
    group, _, last = name.rpartition(".")
    return f"{group}.no-{last}" if group else f"no-{last}"


def _choices(name: str, hint: Any) -> Sequence[str]:
    """Returns the values of a flag that can be completed."""
    if name in _VALUES:
        return _SOURCES[_VALUES[name]]()
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    inner = [part for part in get_args(hint) if part not in (type(None), ...)]
    return [value for part in inner for value in _choices("", part)]


def main(arguments: Sequence[str]) -> None:
    """Prints one candidate a line; prints nothing on an error, which a shell would hide."""
    try:
        found = complete(arguments or [""])
    except Exception:
        found = []
    print("\n".join(dict.fromkeys(found)))
