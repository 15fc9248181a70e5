"""Reader of the policies that the authors of greedy policy search released [molchanov2020].

The CIFAR files hold a NumPy array of Python objects, which is a pickle. It is read with stand-ins
for the classes that it names: nothing is imported and nothing runs. The ImageNet files hold texts.
"""

from __future__ import annotations

import ast
import io
import pickle
import reprlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.augmentations import Protocol
from adaptive_nets.ensembling.policies import Policy, SubPolicy, operations_of
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import check_pickle, check_unpacked_size, read_file

_LIMIT = 1 << 24
# Values in messages: shared lists within lists would make long texts.
_SHORT = reprlib.Repr(maxlevel=2, maxlist=3, maxtuple=3, maxdict=2, maxstring=40, maxother=40)
EMPTY = ("unchanged", "crop")
"""Views of a sub-policy without operations."""


def load_released_policy(path: str | Path, *, empty: str = "unchanged") -> Policy:
    """Reads a policy file of the authors.

    Args:
        path: *.npz (CIFAR) or *.npy (ImageNet).
        empty: view of a sub-policy without operations, see `policy_files.load_policy`.

    Raises:
        UserError: the file is absent, of another format, or has an unknown operation.
    """
    path = Path(path)
    if empty not in EMPTY:
        raise UserError(f"empty is {empty!r}; expected one of {', '.join(EMPTY)}")
    try:
        protocol, found = _sub_policies(read_file(path, limit=_LIMIT))
    except OSError as error:
        raise UserError(f"policy {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # A damaged pickle or archive may raise almost any exception.
        raise UserError(
            f"policy {path} is no released policy: {error}; expected an array of lists of "
            "(operation, magnitude)"
        ) from error
    names = [operation.name for operation in operations_of(protocol)]
    for number, operations in enumerate(found, start=1):
        for index, _ in operations:
            if not 0 <= index < len(names):
                raise UserError(
                    f"policy {path}: sub-policy {number} has the operation {index}; expected a "
                    f"number from 0 to {len(names) - 1}"
                )
    sub_policies = tuple(
        SubPolicy(
            tuple((names[index], magnitude) for index, magnitude in operations),
            crop=protocol == "cifar" and (bool(operations) or empty == "crop"),
        )
        for operations in found
    )
    try:
        return Policy(protocol, sub_policies, {"file": path.name})
    except UserError as error:
        raise UserError(f"policy {path}: {error}") from error


def _sub_policies(content: bytes) -> tuple[Protocol, list[list[tuple[int, float]]]]:
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            check_unpacked_size(archive, limit=_LIMIT)
            if len(archive.namelist()) != 1:
                raise ValueError(f"it holds {len(archive.namelist())} arrays, expected one")
            content = archive.read(archive.namelist()[0])
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"it has version {version} of the NumPy format, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind == "U":
        file.seek(0)
        texts = np.lib.format.read_array(file, allow_pickle=False)
        return "imagenet", [_checked(ast.literal_eval(text)) for text in texts.ravel()]
    if dtype.kind != "O":
        raise ValueError(f"it holds {dtype}, expected objects or texts")
    check_pickle(file)
    values = _Unpickler(file).load()
    values = values.items if isinstance(values, _Array) else values
    if len(shape) == 3:  # Sub-policies of equal lengths: operations and magnitudes in a row.
        count, length, pair = shape
        if pair != 2 or len(values) != count * length * pair:
            raise ValueError(f"it has shape {shape}")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        values = [pairs[i * length : (i + 1) * length] for i in range(count)]
    elif shape != (len(values),):
        raise ValueError(f"it has shape {shape} and {len(values)} entries")
    return "cifar", [_checked(value) for value in values]


def _checked(operations: Any) -> list[tuple[int, float]]:
    if operations is None:  # The unaugmented candidate of the pool.
        return []
    if not isinstance(operations, list):
        raise ValueError(f"a sub-policy is {_SHORT.repr(operations)}")
    pairs = []
    for entry in operations:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2:
            raise ValueError(f"an operation is {_SHORT.repr(entry)}")
        index, magnitude = entry
        if type(index) is not int or type(magnitude) not in (int, float):
            raise ValueError(f"an operation is {_SHORT.repr(entry)}")
        pairs.append((index, float(magnitude)))
    return pairs


class _Array:
    """Stand-in for an array of objects; keeps its items."""

    def __init__(self):
        self.items: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        """Keeps the items, the last part of the state of a NumPy array."""
        if not isinstance(state, tuple) or not isinstance(state[-1], list):
            raise ValueError("its array has no list of items")
        self.items = state[-1]


class _Nothing:
    """Stand-in for everything else; ignores arguments and state."""

    def __init__(self, *arguments: Any):
        """Ignores the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the state."""


class _Unpickler(pickle.Unpickler):
    """Unpickler of an object array that calls nothing but the stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns a stand-in for the name."""
        if name == "_reconstruct" and module.endswith(".multiarray"):
            return _rebuild
        return _Nothing

    def persistent_load(self, pid: Any) -> Any:
        """Refuses references to objects outside the file."""
        raise ValueError("it refers to objects outside the file")


def _rebuild(*_: Any) -> _Array:
    return _Array()
