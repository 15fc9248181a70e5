"""Combinations of values for a sweep: parsing, product, flags and folders."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_nets.runtime.errors import UserError, did_you_mean
from experiments.suite import config as config_lib

MOST = 1000
"""Largest number of combinations of one sweep."""
# File systems allow 255 bytes; the rest is for temporary files beside a folder.
_LONGEST = 180
_BOOLEANS = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        values: field -> text of its value, such as {"optimiser.learning_rate": "0.1"}.
        flags: flags of 'adaptive-nets run' that set them.
        folder: name of the folder of its run.
    """

    values: Mapping[str, str]
    flags: tuple[str, ...]
    folder: str


def parse_values(texts: Sequence[str], config: Any) -> dict[str, list[str]]:
    """Parses the values of a sweep.

    Args:
        texts: one for each field, such as ``"optimiser.learning_rate=0.1,0.01"``.
        config: configuration of the experiment, which has these fields.

    Returns:
        Field -> texts of its values, in order.

    Raises:
        UserError: a text has no field or no value, a field is unknown or given twice, or a value
            is empty or given twice.
    """
    known = config_lib.flat(config_lib.to_dict(config))
    if not texts:
        raise UserError(
            "--values is missing; expected FIELD=VALUE,VALUE such as "
            "--values optimiser.learning_rate=0.1,0.01"
        )
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        field = name.strip().removeprefix("--").replace("-", "_")
        if not equals:
            raise UserError(f"--values is {text!r}; expected FIELD=VALUE,VALUE")
        if field not in known:
            raise UserError(
                f"--values {text}: the experiment has no field {field!r}; "
                f"{did_you_mean(field, known)}"
            )
        if field in found:
            raise UserError(
                f"--values of {field} are given twice; expected all of them in one list"
            )
        values = [value.strip() for value in rest.split(",")]
        if not rest.strip():
            raise UserError(f"--values {text}: the list of {field} is empty; expected VALUE,VALUE")
        if "" in values:
            raise UserError(
                f"--values {text}: value {values.index('') + 1} of {field} is empty; expected "
                "values with single commas between them"
            )
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise UserError(f"--values {text}: {twice} is given twice; expected different values")
        found[field] = values
    return found


def combinations(values: Mapping[str, Sequence[str]], config: Any) -> list[Combination]:
    """Returns the product of the values; the last field varies fastest.

    Args:
        values: field -> texts of its values, from `parse_values`.
        config: configuration of the experiment.

    Raises:
        UserError: there are more than `MOST` combinations, or a switch is neither true nor false.
    """
    known = config_lib.flat(config_lib.to_dict(config))
    count = 1
    for texts in values.values():
        count *= len(texts)
    if count > MOST:
        raise UserError(f"--values have {count:,} combinations; expected at most {MOST:,}")
    made: list[Combination] = []
    for texts in itertools.product(*values.values()):
        chosen = dict(zip(values, texts, strict=True))
        flags = [word for field in chosen for word in _flags(field, chosen[field], known[field])]
        made.append(Combination(chosen, tuple(flags), folder_name(chosen)))
    return _with_distinct_folders(made)


def _flags(field: str, text: str, default: Any) -> list[str]:
    flag = config_lib.flag(field)
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise UserError(f"--values {field}={text}: {text!r} is no switch; expected true, false")
        if _BOOLEANS[text.lower()]:
            return [flag]
        group, dot, name = flag.removeprefix("--").rpartition(".")
        return [f"--{group}{dot}no-{name}"]
    if isinstance(default, list):
        # Commas are between the values of a sweep, spaces between the numbers of one value.
        return [flag, *shlex.split(text)]
    return [flag, text]


def folder_name(values: Mapping[str, str]) -> str:
    """Returns the name of a folder: ``optimiser.learning_rate=0.1,data.batch_size=32``."""
    name = ",".join(f"{field}={_plain(text)}" for field, text in values.items())
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}-{_digest(values)}"


def _plain(text: str) -> str:
    """Replaces what file systems or shells treat specially."""
    return re.sub(r"[^A-Za-z0-9.+%_-]+", "-", text).strip("-") or "-"


def _digest(values: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]


def _with_distinct_folders(made: list[Combination]) -> list[Combination]:
    """Adds a digest to the names that several combinations would share."""
    names = [combination.folder.lower() for combination in made]
    return [
        dataclasses.replace(c, folder=f"{c.folder}-{_digest(c.values)}")
        if names.count(c.folder.lower()) > 1
        else c
        for c in made
    ]


def check_distinct(made: Sequence[Combination], configs: Sequence[Any]) -> None:
    """Raises a `UserError` if two combinations are the same configuration, such as 0.1 and 1e-1.

    Args:
        made: combinations.
        configs: their configurations.
    """
    first: dict[str, Combination] = {}
    for combination, config in zip(made, configs, strict=True):
        key = config_lib.text(config)
        if key in first:
            other = first[key].values
            field = next(f for f, text in combination.values.items() if other[f] != text)
            raise UserError(
                f"--values of {field}: {other[field]} and {combination.values[field]} are the same "
                "value; expected different values"
            )
        first[key] = combination
