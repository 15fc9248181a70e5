"""Safetensors files of perforation plans, with or without the variables of the network.

Version 2 has a digest of header and tensors; in version 1 only the plan has one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from adaptive_nets.models.weights.finite import first_not_finite
from adaptive_nets.models.weights.header import digest
from adaptive_nets.models.weights.safetensors_files import read_safetensors
from adaptive_nets.models.weights.stored import flatten, unflatten
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.perforation.plan import LayerMask, PerforationPlan
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.reading import parse_json

FORMAT = "adaptive_nets.perforation_plan"
VERSION = 2
_READABLE = (1, 2)
_CONTENTS = "contents"
_MASK, _NEAREST = "mask:", "nearest:"


def save_plan(
    path: Path | str, plan: PerforationPlan, *, variables: Mapping[str, Any] | None = None
) -> int:
    """Writes a plan to one file atomically.

    Args:
        path: output file, usually *.safetensors.
        plan: plan to write.
        variables: variables of the perforated network to store too; None for the plan only.

    Returns:
        Size of the file in bytes.
    """
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in flatten(variables or {}).items()}
    for name, layer in plan.layers.items():
        tensors[_MASK + name] = np.ascontiguousarray(layer.mask)
        tensors[_NEAREST + name] = np.ascontiguousarray(layer.nearest, np.int32)
    header = {
        "version": VERSION,
        "model": plan.model,
        "fingerprint": plan.fingerprint,
        "digest": plan.digest,
        "kinds": {name: layer.kind for name, layer in plan.layers.items()},
    }
    header[_CONTENTS] = digest(tensors, header)
    content = save(tensors, metadata={FORMAT: json.dumps(header, allow_nan=False)})
    write_bytes_atomically(Path(path), content)
    return len(content)


def load_plan(path: Path | str) -> PerforationPlan:
    """Reads a plan written by `save_plan`; executes no code from the file.

    Raises:
        UserError: the file does not exist, is unreadable, damaged or not a plan.
    """
    return _read(Path(path))[0]


def load_plan_variables(path: Path | str) -> dict[str, Any]:
    """Reads the variables stored with a plan by `save_plan`; empty if there are none.

    Raises:
        UserError: the file does not exist, is unreadable, damaged or not a plan.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[PerforationPlan, dict[str, Any]]:
    try:
        metadata, tensors = read_safetensors(path)
    except FileNotFoundError as error:
        raise UserError(
            f"plan file {path} does not exist; expected one written by save_plan"
        ) from error
    except OSError as error:
        raise UserError(f"plan file {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"plan file {path} cannot be read as safetensors: {error}") from error
    if FORMAT not in metadata:
        raise UserError(
            f"file {path} holds no perforation plan; expected the entry {FORMAT!r} in its header"
        )
    try:
        return _decode(metadata[FORMAT], tensors)
    except (UserError, ValueError) as error:
        raise UserError(f"plan file {path} {error}; write it again with save_plan") from error


def _decode(
    text: str, tensors: Mapping[str, np.ndarray | Unreadable]
) -> tuple[PerforationPlan, dict[str, Any]]:
    """Decodes header and tensors of a file; an error's message is a clause about the file."""
    try:
        header = parse_json(text)
    except ValueError as error:
        raise ValueError(f"is damaged: its header is not JSON ({error})") from error
    version = header.get("version") if isinstance(header, dict) else None
    if type(version) is not int or version not in _READABLE:
        raise ValueError(f"has version {str(version)[:40]}; expected 1 or 2")
    for name, kind in (("kinds", dict), ("fingerprint", str), ("model", str), ("digest", str)):
        if not isinstance(header.get(name), kind):
            raise ValueError(f"is damaged: {name} in its header is {str(header.get(name))[:60]}")
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in tensors.items():
        if isinstance(leaf, Unreadable):
            raise ValueError(f"is damaged: {name} is {leaf.what}")
        if (place := first_not_finite(leaf)) is not None:
            raise ValueError(f"is refused: {name} has {place}; expected finite numbers")
        arrays[name] = leaf
    rest = {name: entry for name, entry in header.items() if name != _CONTENTS}
    if version > 1 and header.get(_CONTENTS) != digest(arrays, rest):
        raise ValueError("is damaged: its contents do not match their digest")
    layers = {}
    for name, kind in header["kinds"].items():
        mask, nearest = arrays.pop(_MASK + name, None), arrays.pop(_NEAREST + name, None)
        if mask is None or nearest is None or not mask.size or not isinstance(kind, str):
            raise ValueError(f"is damaged: it has no whole mask of {name}")
        try:
            layers[name] = LayerMask(mask, nearest, kind, float(mask.mean()))
        except UserError as error:
            raise ValueError(f"is damaged: in the layer {name}, {error}") from error
    plan = PerforationPlan(header["fingerprint"], layers, header["model"])
    if plan.digest != header["digest"]:
        raise ValueError(
            f"is damaged: its digest is {plan.digest}; expected {header['digest'][:40]}, as in its "
            "header"
        )
    return plan, unflatten(arrays)
