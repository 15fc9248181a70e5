"""A plan in one file, beside the variables of its network or alone: safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from adaptive_nets.models.weights.stored import flatten, unflatten
from adaptive_nets.perforation.plan import LayerMask, PerforationPlan
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically

FORMAT = "adaptive_nets.perforation_plan"
VERSION = 1
_MASK, _NEAREST = "mask:", "nearest:"


def save_plan(
    path: Path | str, plan: PerforationPlan, *, variables: Mapping[str, Any] | None = None
) -> int:
    """Writes a plan to one file, whole or not at all.

    Args:
        path: the file, usually *.safetensors.
        plan: what to write.
        variables: of the perforated network, stored with the plan; None for the plan alone.

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
    content = save(tensors, metadata={FORMAT: json.dumps(header)})
    write_bytes_atomically(Path(path), content)
    return len(content)


def load_plan(path: Path | str) -> PerforationPlan:
    """Reads a plan that `save_plan` wrote; runs no code from the file.

    Raises:
        UserError: the file is absent, unreadable, of another kind, or not what was written.
    """
    return _read(Path(path))[0]


def load_plan_variables(path: Path | str) -> dict[str, Any]:
    """The variables that `save_plan` stored with a plan; empty where it stored none.

    Raises:
        UserError: as of `load_plan`.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[PerforationPlan, dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"plan file {path} does not exist; expected one written by save_plan")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"plan file {path} cannot be read as safetensors: {error}") from error
    if FORMAT not in metadata:
        raise UserError(
            f"file {path} holds no perforation plan; expected the entry {FORMAT!r} in its header"
        )
    header = json.loads(metadata[FORMAT])
    if header["version"] != VERSION:
        raise UserError(f"plan file {path} has version {header['version']}; expected {VERSION}")
    layers = {}
    for name, kind in header["kinds"].items():
        mask, nearest = tensors.pop(_MASK + name), tensors.pop(_NEAREST + name)
        layers[name] = LayerMask(mask, nearest, kind, float(mask.mean()))
    plan = PerforationPlan(header["fingerprint"], layers, header["model"])
    if plan.digest != header["digest"]:
        raise UserError(f"plan file {path} is damaged: its contents do not match its digest")
    return plan, unflatten(tensors)
