"""Header of the files of trained networks, and the digest that covers it.

Version 2 has the header within the digest; in version 1 the digest covers the tensors only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adaptive_nets.runtime.reading import parse_json

FORMAT = "adaptive_nets.network"
VERSION = 2
READABLE = (1, 2)
_DIGEST = "digest"
_CLASSES = 1_000_000
_DENSE = 1 << 31
"""Most entries of all kernels of a sparse file together."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a file; see `StoredNetwork` for the attributes of the same names.

    Attributes:
        model: registered name of the network.
        num_classes: number of outputs.
        pixel_scale: of the input normalisation.
        per_image: of the input normalisation.
        sparse_shapes: shapes of the kernels that are stored as values and gaps.
        note: provenance of the network.
    """

    model: str
    num_classes: int
    pixel_scale: float
    per_image: bool
    sparse_shapes: dict[str, tuple[int, ...]]
    note: dict[str, Any]


def write_header(header: Header, tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the header as JSON, with the digest of itself and the tensors."""
    entries = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(header)}
    entries[_DIGEST] = _digest(entries, tensors)
    return json.dumps(entries, sort_keys=True, allow_nan=False)


def read_header(text: str, tensors: Mapping[str, np.ndarray]) -> Header:
    """Parses and checks a header and the digest.

    Raises:
        ValueError: the header is damaged, of another version, or does not match the tensors; the
            message is a clause such as ``is damaged: ...``.
    """
    try:
        entries = parse_json(text)
    except ValueError as error:
        raise ValueError(f"is damaged: its header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise ValueError("is damaged: its header is not a JSON object")
    version = entries.get("version")
    if type(version) is not int or version not in READABLE:
        readable = " or ".join(map(str, READABLE))
        raise ValueError(f"has version {str(version)[:40]}; expected {readable}")
    if entries.get(_DIGEST) != _digest(entries, tensors):
        raise ValueError("is damaged: its contents do not match its digest")
    return _check(entries)


def _digest(entries: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    if entries.get("version") == 1:
        return digest(tensors)
    return digest(tensors, {name: entry for name, entry in entries.items() if name != _DIGEST})


def digest(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any] | None = None) -> str:
    """Returns the sha256, hex, of tensors with their names, and of a header of JSON values."""
    sums = hashlib.sha256()
    if header is not None:
        sums.update(json.dumps(header, sort_keys=True).encode() + b"\n")
    for name in sorted(tensors):
        leaf = tensors[name]
        sums.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sums.update(np.ascontiguousarray(leaf).tobytes())
    return sums.hexdigest()


def _check(entries: Mapping[str, Any]) -> Header:
    """Checks the entries of a header one by one; in version 1 nothing else protects them."""
    # Early files lack it.
    entries = {"per_image": False, **entries}

    def entry(name: str, accept: Callable[[Any], bool], expected: str) -> Any:
        value = entries.get(name)
        if name not in entries or not accept(value):
            found = f"is {json.dumps(value)[:60]}" if name in entries else "is missing"
            raise ValueError(f"is damaged: {name} {found} in its header; expected {expected}")
        return value

    def is_number(value: Any) -> bool:
        return type(value) in (int, float) and 0 < value <= 1e30 and math.isfinite(value)

    shapes = entry("sparse_shapes", lambda v: isinstance(v, dict), "shapes by name")
    for name, shape in shapes.items():
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(
                f"is damaged: the shape of {name} is {json.dumps(shape)[:60]} in its header; "
                "expected whole numbers"
            )
    size = sum(math.prod(shape) for shape in shapes.values())
    if size > _DENSE:
        raise ValueError(
            f"is damaged: its kernels have {float(size):.3g} entries by its header; expected at "
            f"most {_DENSE:,}"
        )
    note = entry("note", lambda v: isinstance(v, dict), "a JSON object")
    overrides, data = note.get("overrides", {}), note.get("data")
    if not isinstance(overrides, dict) or not (data is None or isinstance(data, str)):
        raise ValueError(
            "is damaged: overrides and data in the note of its header are "
            f"{json.dumps([overrides, data])[:80]}; expected a JSON object and a name"
        )
    return Header(
        model=entry("model", lambda v: isinstance(v, str), "the name of a network"),
        num_classes=entry(
            "num_classes", lambda v: type(v) is int and 0 < v <= _CLASSES, f"1 to {_CLASSES:,}"
        ),
        pixel_scale=float(entry("pixel_scale", is_number, "a positive number")),
        per_image=entry("per_image", lambda v: isinstance(v, bool), "true or false"),
        sparse_shapes={name: tuple(shape) for name, shape in shapes.items()},
        note=note,
    )
