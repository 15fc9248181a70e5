"""Trained networks as safetensors files with optional sparse kernels.

A sparse kernel is stored as two tensors: its non-zero values in row-major order, and the gaps
between their positions in the smallest unsigned type that holds them. The header holds the name of
the network, its input normalisation and a digest of header and tensors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from adaptive_nets.models.adaptive.weights import check_halting_rule, halting_rule
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights.finite import first_not_finite
from adaptive_nets.models.weights.header import FORMAT, Header, read_header, write_header
from adaptive_nets.models.weights.safetensors_files import read_safetensors
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically

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
    """Inverts `flatten`.

    Raises:
        ValueError: a name is that of an array and of a mapping.
    """
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"is damaged: {name} is in a tensor")
        if last in node:
            raise ValueError(f"is damaged: {name} is a tensor and holds others")
        node[last] = leaf
    return tree


def _encode_sparse(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions = np.flatnonzero(kernel)
    gaps = np.diff(positions, prepend=-1) - 1
    largest = int(gaps.max(initial=0))
    dtype = next(
        t for t in (np.uint8, np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(t).max
    )
    return kernel.ravel()[positions], gaps.astype(dtype)


def _decode_sparse(values: np.ndarray, gaps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Inverts `_encode_sparse`.

    Raises:
        ValueError: there are more or other gaps than values, or they go beyond the shape.
    """
    size = math.prod(shape)
    if values.ndim != 1 or values.shape != gaps.shape or gaps.dtype.kind != "u":
        raise ValueError(
            f"values are {values.dtype}{list(values.shape)} and gaps {gaps.dtype}"
            f"{list(gaps.shape)}; expected as many gaps as values"
        )
    if len(values) > size or (len(gaps) and int(gaps.max()) >= size):
        raise ValueError(f"values and gaps go beyond the shape {shape}")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ValueError(f"values and gaps go beyond the shape {shape}")
    # Takes no memory until the shape is compared with the network's.
    kernel = np.zeros(size, values.dtype)
    kernel[positions] = values
    return kernel.reshape(shape)


def save_network(
    path: str | Path,
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
    path = Path(path)
    tensors: dict[str, np.ndarray] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, leaf in flatten(variables).items():
        if sparse and name.endswith("/kernel"):
            shapes[name] = tuple(leaf.shape)
            tensors[name + _VALUES], tensors[name + _GAPS] = _encode_sparse(leaf)
        else:
            # Unlike `np.ascontiguousarray`, this leaves a scalar a scalar.
            tensors[name] = np.asarray(leaf, order="C")
    tensors[_OFFSET] = np.asarray(normalisation.offset, np.float32)
    tensors[_SCALE] = np.asarray(normalisation.scale, np.float32)
    header = Header(
        model=model,
        num_classes=num_classes,
        pixel_scale=normalisation.pixel_scale,
        per_image=normalisation.per_image,
        sparse_shapes=shapes,
        note=dict(note or {}),
    )
    content = save(tensors, metadata={FORMAT: write_header(header, tensors)})
    write_bytes_atomically(path, content)
    return len(content)


def load_network(path: str | Path) -> StoredNetwork:
    """Reads a file of `save_network` without running code from it.

    Raises:
        UserError: the file is absent, unreadable, damaged, of another format or version, or holds
            numbers that are not finite; the message names the first tensor with one.
    """
    path = Path(path)
    source = f"weights file {path}"
    try:
        metadata, found = read_safetensors(path)
    except FileNotFoundError as error:
        raise UserError(f"{source} does not exist; expected a file written by a run") from error
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{source} cannot be read as safetensors: {error}") from error
    if FORMAT not in metadata:
        raise UserError(
            f"{source} was not written by adaptive_nets; expected the entry {FORMAT!r} in its "
            "header"
        )
    try:
        return _decode(metadata[FORMAT], found)
    except ValueError as error:
        raise UserError(f"{source} {error}") from error
    except MemoryError as error:
        raise UserError(f"{source} is damaged: its kernels do not fit into the memory") from error


def _decode(text: str, found: Mapping[str, np.ndarray | Unreadable]) -> StoredNetwork:
    """Decodes header and tensors of a file; a `ValueError` is a clause about the file."""
    tensors: dict[str, np.ndarray] = {}
    for name, leaf in found.items():
        if isinstance(leaf, Unreadable):
            raise ValueError(f"is damaged: {name} is {leaf.what}")
        tensors[name] = leaf
    header = read_header(text, tensors)
    for name, leaf in tensors.items():
        if (place := first_not_finite(leaf)) is not None:
            raise ValueError(
                f"is refused: {name.removesuffix(_VALUES)} has {place}; expected finite numbers"
            )
    for name in (_OFFSET, _SCALE):
        leaf = tensors.get(name)
        if leaf is None or leaf.ndim != 3 or leaf.dtype != np.float32:
            raise ValueError(f"is damaged: {name} is not float32[H, W, C] in it")
    offset, scale = tensors.pop(_OFFSET), tensors.pop(_SCALE)
    stored = sum(
        leaf.size
        for name, leaf in tensors.items()
        if name.endswith(("/kernel", "/kernel" + _VALUES))
    )
    for name, shape in header.sparse_shapes.items():
        if not {name + _VALUES, name + _GAPS} <= tensors.keys():
            raise ValueError(f"is damaged: it lacks values or gaps of {name}")
        values, gaps = tensors.pop(name + _VALUES), tensors.pop(name + _GAPS)
        try:
            tensors[name] = _decode_sparse(values, gaps, shape)
        except ValueError as error:
            raise ValueError(f"is damaged: {name}: {error}") from error
    return StoredNetwork(
        model=header.model,
        num_classes=header.num_classes,
        variables=unflatten(tensors),
        normalisation=InputNormalisation(header.pixel_scale, offset, scale, header.per_image),
        stored_weights=int(stored),
        note=header.note,
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
