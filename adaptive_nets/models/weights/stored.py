"""Trained networks as safetensors files with optional sparse kernels.

A sparse kernel is stored as two tensors: its non-zero values in row-major order, and the gaps
between their positions in the smallest unsigned type that holds them. The header holds the name of
the network, its input normalisation and a digest of the contents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from adaptive_nets.models.adaptive.weights import check_halting_rule, halting_rule
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically

FORMAT = "adaptive_nets.network"
VERSION = 1
_VALUES, _GAPS = ".values", ".gaps"
_OFFSET, _SCALE = "input.offset", "input.scale"


@dataclasses.dataclass(frozen=True)
class StoredNetwork:
    """Contents of a file of a trained network.

    Attributes:
        model: registered name of the network.
        num_classes: number of outputs.
        variables: {"params": ..., other collections} of NumPy arrays; kernels are dense.
        normalisation: normalisation of the inputs.
        stored_weights: number of stored kernel entries.
        note: provenance of the network.
    """

    model: str
    num_classes: int
    variables: dict[str, Any]
    normalisation: InputNormalisation
    stored_weights: int
    note: dict[str, Any]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Flattens nested mappings to {'params/fc1/kernel': array}."""
    flat: dict[str, np.ndarray] = {}
    for name, child in tree.items():
        if isinstance(child, Mapping):
            flat |= flatten(child, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = np.asarray(child)
    return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Inverts `flatten`."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    sums = hashlib.sha256()
    for name in sorted(tensors):
        leaf = tensors[name]
        sums.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sums.update(np.ascontiguousarray(leaf).tobytes())
    return sums.hexdigest()


def _encode_sparse(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions = np.flatnonzero(kernel)
    gaps = np.diff(positions, prepend=-1) - 1
    largest = int(gaps.max(initial=0))
    dtype = next(
        t for t in (np.uint8, np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(t).max
    )
    return kernel.ravel()[positions], gaps.astype(dtype)


def _decode_sparse(values: np.ndarray, gaps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    kernel = np.zeros(math.prod(shape), values.dtype)
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    kernel[positions] = values
    return kernel.reshape(shape)


def save_network(
    path: Path,
    *,
    model: str,
    num_classes: int,
    variables: Mapping[str, Any],
    normalisation: InputNormalisation,
    sparse: bool = False,
    note: Mapping[str, Any] | None = None,
) -> int:
    """Writes a network to one file, atomically.

    Args:
        path: file to write, usually *.safetensors.
        model: registered name of the network that has these variables.
        num_classes: number of outputs.
        variables: {"params": ..., other collections}.
        normalisation: normalisation of the training inputs.
        sparse: whether to store kernels as values and gaps.
        note: provenance of the network, JSON values.

    Returns:
        Size of the file in bytes.
    """
    tensors: dict[str, np.ndarray] = {}
    shapes: dict[str, list[int]] = {}
    for name, leaf in flatten(variables).items():
        if sparse and name.endswith("/kernel"):
            shapes[name] = list(leaf.shape)
            tensors[name + _VALUES], tensors[name + _GAPS] = _encode_sparse(leaf)
        else:
            # Unlike `np.ascontiguousarray`, this leaves a scalar a scalar.
            tensors[name] = np.asarray(leaf, order="C")
    tensors[_OFFSET] = np.asarray(normalisation.offset, np.float32)
    tensors[_SCALE] = np.asarray(normalisation.scale, np.float32)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "num_classes": num_classes,
        "pixel_scale": normalisation.pixel_scale,
        "per_image": normalisation.per_image,
        "sparse_shapes": shapes,
        "note": dict(note or {}),
        "digest": _digest(tensors),
    }
    content = save(tensors, metadata={FORMAT: json.dumps(header, sort_keys=True)})
    write_bytes_atomically(path, content)
    return len(content)


def load_network(path: Path) -> StoredNetwork:
    """Reads a file of `save_network` without running code from it.

    Raises:
        UserError: the file is absent, unreadable, damaged, or of another format or version.
    """
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist; expected a file written by a run")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"weights file {path} cannot be read as safetensors: {error}") from error
    if FORMAT not in metadata:
        raise UserError(
            f"weights file {path} was not written by adaptive_nets; expected the entry {FORMAT!r} "
            "in its header"
        )
    header = json.loads(metadata[FORMAT])
    if header["version"] != VERSION:
        raise UserError(f"weights file {path} has version {header['version']}; expected {VERSION}")
    if _digest(tensors) != header["digest"]:
        raise UserError(f"weights file {path} is damaged: its contents do not match its digest")
    offset, scale = tensors.pop(_OFFSET), tensors.pop(_SCALE)
    stored = sum(
        leaf.size
        for name, leaf in tensors.items()
        if name.endswith(("/kernel", "/kernel" + _VALUES))
    )
    for name, shape in header["sparse_shapes"].items():
        values, gaps = tensors.pop(name + _VALUES), tensors.pop(name + _GAPS)
        tensors[name] = _decode_sparse(values, gaps, tuple(shape))
    return StoredNetwork(
        model=header["model"],
        num_classes=header["num_classes"],
        variables=unflatten(tensors),
        normalisation=InputNormalisation(
            header["pixel_scale"], offset, scale, header.get("per_image", False)
        ),
        stored_weights=int(stored),
        note=header["note"],
    )


def check_fits(variables: Mapping[str, Any], expected: Mapping[str, Any], *, source: str) -> None:
    """Checks that variables have the names and shapes that a network expects.

    Halting heads of another rule are rejected, since their outputs have another meaning.

    Args:
        variables: variables that were read.
        expected: tree of arrays or shapes of the network.
        source: name of the file in the message.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape; the message names the first.
    """
    rule = halting_rule(expected.get("params", {}))
    if rule is not None:
        check_halting_rule(variables.get("params", {}), rule, source=source)
    found = {name: tuple(leaf.shape) for name, leaf in flatten(variables).items()}
    wanted = _abstract_shapes(expected)
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"{source} does not fit the network: {name} is {found.get(name, 'absent')} "
                f"in the file, expected {wanted.get(name, 'nothing of this name')}"
            )


def _abstract_shapes(tree: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, child in tree.items():
        if isinstance(child, Mapping):
            shapes |= _abstract_shapes(child, f"{prefix}{name}/")
        else:
            shapes[f"{prefix}{name}"] = tuple(child.shape)
    return shapes
