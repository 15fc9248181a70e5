"""Reader of ``torch.save`` files that needs no PyTorch and runs no code from the file.

Such a file is a pickle whose tensors refer to storages outside it: members of a zip archive or, in
the older form, byte ranges behind the pickle. A pickle is a program, so this unpickler resolves
only the names that plain tensors in plain containers need and rejects every other name before
lookup.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from adaptive_nets.runtime.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("f8"),
    "FloatStorage": np.dtype("f4"),
    "HalfStorage": np.dtype("f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("i8"),
    "IntStorage": np.dtype("i4"),
    "ShortStorage": np.dtype("i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _FormatError(Exception):
    """Defect of a file, described in one clause."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """Placeholder of a PyTorch storage class."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Unread storage, identified by its key; `start` is the offset of a view."""

    key: str
    dtype: np.dtype
    start: int = 0


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """Strided view of an unread storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(v) is int and v >= 0 for v in values):
        raise _FormatError(f"a tensor has the size or stride {values!r}")
    return values


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise _FormatError("a tensor has no storage")
    size, stride = _whole_numbers(size), _whole_numbers(stride)
    (offset,) = _whole_numbers((offset,))
    if len(size) != len(stride):
        raise _FormatError(f"a tensor has the size {size} and the stride {stride}")
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise _FormatError("a parameter has no tensor")
    return data


# Names that a file may use -> objects that they resolve to.
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Unpickler restricted to containers, numbers, strings and unread tensors.

    Attributes:
        dtypes: key of every storage in the pickle -> dtype.
    """

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="utf-8")
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _FormatError(
                f"it asks for {module}.{name}; expected only tensors and containers"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), *rest):
                # In old files a storage may be a view of another: (key, offset, size).
                view = rest[2] if len(rest) > 2 else None
                start = 0 if view is None else _whole_numbers((view[1],))[0]
                self.dtypes[key] = dtype
                return _Storage(key, dtype, start)
        raise _FormatError(f"it has a storage of an unknown kind, {str(pid)[:60]!r}")


def _materialise(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """Copies a tensor to an array."""
    values = values[tensor.storage.start + tensor.offset :]
    if 0 in tensor.size:
        return np.zeros(tensor.size, values.dtype)
    # Bounds come first: a view may repeat elements, which is large, but not exceed its storage.
    last = sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    count = 1
    for n in tensor.size:
        count *= n
    if last >= len(values) or count > max(len(values), 1):
        raise _FormatError(f"a tensor of size {tensor.size} goes beyond its storage")
    strides = [step * values.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(values, tensor.size, strides).copy()


def _resolve(tree: Any, read: Callable[[_Storage], np.ndarray]) -> Any:
    """Replaces the unread tensors in nested containers by arrays."""
    # Shared nodes are resolved once, since nested sharing would otherwise take exponential time.
    done: dict[int, Any] = {}

    def resolve(node: Any) -> Any:
        if id(node) not in done:
            if isinstance(node, _Tensor):
                done[id(node)] = _materialise(node, read(node.storage))
            elif isinstance(node, Mapping):
                done[id(node)] = {key: resolve(value) for key, value in node.items()}
            elif isinstance(node, (list, tuple)):
                done[id(node)] = [resolve(value) for value in node]
            else:
                return node
        return done[id(node)]

    return resolve(tree)


def _from_archive(file: IO[bytes]) -> Any:
    """Reads the form since PyTorch 1.6: a zip archive with one member per storage."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise _FormatError(
                "its members are compressed; expected the uncompressed archive of PyTorch"
            )
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _FormatError("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = "little"
        if f"{folder}byteorder" in members:
            order = archive.read(f"{folder}byteorder").decode("ascii", "replace")
        if order not in ("little", "big"):
            raise _FormatError(f"its byte order is {order!r}; expected 'little' or 'big'")
        with archive.open(pickles[0]) as member:
            tree = _Unpickler(member).load()
        contents: dict[tuple[str, np.dtype], np.ndarray] = {}

        def read(storage: _Storage) -> np.ndarray:
            key = storage.key, storage.dtype
            if key not in contents:
                name = f"{folder}data/{storage.key}"
                if name not in members:
                    raise _FormatError(f"the storage {storage.key!r} is missing")
                contents[key] = _decoded(archive.read(name), storage.dtype, order)
            return contents[key]

        return _resolve(tree, read)


def _decoded(content: bytes, dtype: np.dtype, order: str) -> np.ndarray:
    if len(content) % dtype.itemsize:
        raise _FormatError(f"a storage of {dtype} has {len(content)} bytes")
    values = np.frombuffer(content, dtype)
    return values if order == "little" else values.byteswap()


def _from_sequence(file: IO[bytes]) -> Any:
    """Reads the form before PyTorch 1.6: four pickles, the storage keys, the storages."""
    if _Unpickler(file).load() != _MAGIC:
        raise _FormatError("it does not begin as PyTorch's files do")
    version = _Unpickler(file).load()
    if version != _LEGACY_VERSION:
        raise _FormatError(f"its version is {version!r}, expected {_LEGACY_VERSION}")
    machine = _Unpickler(file).load()
    if not isinstance(machine, Mapping) or not isinstance(machine.get("little_endian"), bool):
        raise _FormatError("it lacks the description of the machine that wrote it")
    order = "little" if machine["little_endian"] else "big"
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    keys = _Unpickler(file).load()
    dtypes = unpickler.dtypes
    size = os.fstat(file.fileno()).st_size
    contents: dict[str, np.ndarray] = {}
    for key in keys if isinstance(keys, list) else ():
        header = file.read(8)
        if len(header) < 8 or key not in dtypes:
            raise _FormatError(f"the storage {key!r} is missing")
        (count,) = struct.unpack("<q" if order == "little" else ">q", header)
        if not 0 <= count * dtypes[key].itemsize <= size - file.tell():
            raise _FormatError("it is truncated")
        contents[key] = _decoded(file.read(count * dtypes[key].itemsize), dtypes[key], order)

    def read(storage: _Storage) -> np.ndarray:
        if storage.key not in contents:
            raise _FormatError(f"the storage {storage.key!r} is missing")
        return contents[storage.key]

    return _resolve(tree, read)


def read_torch(path: Path) -> Any:
    """Reads a ``torch.save`` file: containers, numbers, strings, and tensors as arrays.

    Args:
        path: *.pt, *.pth or *.th file of either form.

    Returns:
        The pickled value, with mappings as dicts, sequences as lists and the file's dtypes.

    Raises:
        UserError: the file is absent, damaged, of another format, or holds other objects.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return _from_archive(file) if is_archive else _from_sequence(file)
    except _FormatError as error:
        raise UserError(f"weights file {path} is refused: {error}") from error
    except OSError as error:
        raise UserError(f"weights file {path}: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle or archive may raise almost any exception.
        raise UserError(
            f"weights file {path} is damaged or not a PyTorch file "
            f"({type(error).__name__}: {error})"
        ) from error
