"""JSON objects and JSON lines from files that may be damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import READ_LIMIT, TEXT_LIMIT, parse_json, read_file


def _is_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def read_json_object(
    path: Path,
    *,
    remedy: str,
    entries: Mapping[str, type | tuple[type, ...]] | None = None,
) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Args:
        path: file to read.
        remedy: instruction that the message ends with, such as "choose another folder".
        entries: types of the entries that the object must have.

    Raises:
        UserError: the file cannot be read, is not a JSON object, or lacks an entry.
    """
    try:
        content = parse_json(read_file(path, limit=TEXT_LIMIT))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {_kind(content)}; expected an object")
        for name, kind in (entries or {}).items():
            if name not in content:
                raise ValueError(f"it has no entry {name!r}")
            if not _is_of(content[name], kind):
                raise ValueError(f"its entry {name!r} is {_kind(content[name])}")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {remedy}") from error
    return content


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")


def read_json_lines(
    path: Path, *, entries: Mapping[str, type | tuple[type, ...]] | None = None
) -> list[dict[str, Any]]:
    """Reads the objects of a JSON-lines file without damaged lines, such as a cut-off last one.

    Args:
        path: file to read; one that does not exist has no lines.
        entries: types of the entries that an object must have.

    Raises:
        UserError: the file exists and cannot be read, or is a folder or a device.
    """
    try:
        # A log of every step of a long run is large.
        texts = read_file(path, limit=READ_LIMIT).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; move it away and run the same command"
        ) from error
    lines: list[dict[str, Any]] = []
    for text in texts:
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict) and all(
            _is_of(line.get(name), kind) for name, kind in (entries or {}).items()
        ):
            lines.append(line)
    return lines
