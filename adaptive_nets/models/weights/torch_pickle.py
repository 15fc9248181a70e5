"""Reader of ``torch.save`` files that needs no PyTorch and runs no code from the file.

Such a file is a pickle whose tensors refer to storages outside it: members of a zip archive or, in
the older form, byte ranges behind the pickle. A pickle is a program that calls whatever it names.
This unpickler therefore resolves the names of tensors and plain containers to functions of its own
and every other name to an inert class, see `inert`: nothing is imported and nothing runs.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from adaptive_nets.models.weights.inert import Inert, class_name, inert_class, rebuild
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import check_pickle, open_file

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
    "ComplexFloatStorage": np.dtype("c8"),
    "ComplexDoubleStorage": np.dtype("c16"),
    # The codes of quantised tensors, whose scales are elsewhere.
    "QUInt8Storage": np.dtype("u1"),
    "QInt8Storage": np.dtype("i1"),
    "QInt32Storage": np.dtype("i4"),
    # Bytes of any dtype, which the tensor names.
    "UntypedStorage": np.dtype("u1"),
}
_DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype("f8"),
    "float32": np.dtype("f4"),
    "float16": np.dtype("f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype("i8"),
    "int32": np.dtype("i4"),
    "int16": np.dtype("i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("u8"),
    "uint32": np.dtype("u4"),
    "uint16": np.dtype("u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}


class _FormatError(Exception):
    """Defect of a file, described in one clause."""


class _Fixed:
    """Base of values that a pickle can reach; it cannot change them after their checks."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the state that a pickle sets."""


@dataclasses.dataclass(frozen=True)
class _StorageType(_Fixed):
    """Placeholder of a PyTorch storage class."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Dtype(_Fixed):
    """Placeholder of a PyTorch dtype."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage(_Fixed):
    """Unread storage, identified by its key; `start` is the offset of a view."""

    key: str
    dtype: np.dtype
    start: int = 0


@dataclasses.dataclass(frozen=True)
class _Tensor(_Fixed):
    """Strided view of an unread storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(v) is int and v >= 0 for v in values):
        raise _FormatError(f"a tensor has the size or stride {str(values)[:60]}")
    return values


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    if isinstance(storage, Unreadable):
        return storage
    if not isinstance(storage, _Storage):
        raise _FormatError("a tensor has no storage")
    size, stride = _whole_numbers(size), _whole_numbers(stride)
    (offset,) = _whole_numbers((offset,))
    if len(size) != len(stride):
        raise _FormatError(f"a tensor has the size {size} and the stride {stride}")
    return _Tensor(storage, offset, size, stride)


def _rebuild_tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any,
    *_: Any,
) -> Any:  # fmt: skip
    """Rebuilds a tensor of untyped storage, the form of dtypes without a storage class."""
    if isinstance(storage, _Storage) and not isinstance(dtype, _Dtype):
        return Unreadable(f"a tensor of {class_name(dtype)}")
    if isinstance(storage, _Storage):
        storage = dataclasses.replace(storage, dtype=dtype.dtype)
    return _rebuild_tensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, (_Tensor, Unreadable, Inert)):
        raise _FormatError("a parameter has no tensor")
    return data


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Rebuilds a tensor of a subclass, whose attributes are left out."""
    if function in _REBUILD.values() and isinstance(arguments, tuple):
        return function(*arguments)
    return Unreadable(f"an object of the class {class_name(kind)}")


@dataclasses.dataclass(frozen=True)
class _Function(_Fixed):
    """Function that a pickle may call."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


_REBUILD = {
    "_rebuild_tensor": _Function(_rebuild_tensor),
    "_rebuild_tensor_v2": _Function(_rebuild_tensor),
    "_rebuild_tensor_v3": _Function(_rebuild_tensor_of_dtype),
    "_rebuild_parameter": _Function(_rebuild_parameter),
    "_rebuild_parameter_with_state": _Function(_rebuild_parameter),
}
# Names that a file may use -> objects that they resolve to.
_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("torch._utils", name): function for name, function in _REBUILD.items()},
    ("torch._tensor", "_rebuild_from_type_v2"): _Function(_rebuild_from_type),
    ("torch", "Size"): tuple,
    ("copyreg", "_reconstructor"): _Function(rebuild),
    ("copy_reg", "_reconstructor"): _Function(rebuild),
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
    ("torch.storage", "UntypedStorage"): _StorageType(_STORAGES["UntypedStorage"]),
    **{("torch", name): _Dtype(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Unpickler of containers, numbers, strings, unread tensors and inert objects.

    Attributes:
        dtypes: key of every storage in the pickle -> dtype, None if it is not known.
    """

    def __init__(self, file: IO[bytes]):
        # Strings of Python 2 may hold any bytes.
        super().__init__(file, encoding="utf-8", errors="backslashreplace")
        self.dtypes: dict[str, np.dtype | None] = {}
        self._classes: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        key = module, name
        if key in _KNOWN:
            return _KNOWN[key]
        if key not in self._classes:
            # Classes are made anew for each file, since a pickle may set attributes of a class.
            self._classes[key] = inert_class(module, name)
        return self._classes[key]

    def persistent_load(self, pid: Any) -> _Storage | Unreadable:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), *rest):
                # In old files a storage may be a view of another: (key, offset, size).
                view = rest[2] if len(rest) > 2 else None
                start = 0
                if view is not None:
                    if not isinstance(view, tuple) or len(view) != 3:
                        raise _FormatError(f"it has a view of a storage, {str(view)[:60]}")
                    start = _whole_numbers((view[1],))[0]
                self.dtypes[key] = dtype
                return _Storage(key, dtype, start)
            case ("storage", kind, str(key), *_):
                self.dtypes[key] = None
                return Unreadable(f"a tensor of {class_name(kind)}")
        raise _FormatError(f"it has a storage of an unknown kind, {str(pid)[:60]!r}")


def _load(file: IO[bytes]) -> tuple[Any, dict[str, np.dtype | None]]:
    """Reads one pickle: the value, and the dtypes of its storages."""
    check_pickle(file)
    unpickler = _Unpickler(file)
    return unpickler.load(), unpickler.dtypes


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


_PLAIN = (bool, int, float, complex, str, bytes, bytearray, set, frozenset, type(None), Unreadable)


def _resolve(tree: Any, read: Callable[[_Storage], np.ndarray]) -> Any:
    """Replaces the unread tensors in nested containers by arrays."""
    # Shared nodes are resolved once, since nested sharing would otherwise take exponential time.
    done: dict[int, Any] = {}

    def resolve(node: Any) -> Any:
        if id(node) not in done:
            if isinstance(node, _Tensor):
                done[id(node)] = _materialise(node, read(node.storage))
            elif isinstance(node, Inert):
                # Subclasses of dict are mappings; anything else is only named.
                made = {key: resolve(value) for key, value in node.inert_items}
                done[id(node)] = made or Unreadable(f"an object of the class {class_name(node)}")
            elif isinstance(node, Mapping):
                done[id(node)] = {key: resolve(value) for key, value in node.items()}
            elif isinstance(node, (list, tuple)):
                done[id(node)] = [resolve(value) for value in node]
            elif isinstance(node, _PLAIN):
                return node
            else:
                # A class or dtype by itself.
                return Unreadable(f"the object {class_name(node)}")
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
        tree, _ = _load(io.BytesIO(archive.read(pickles[0])))
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
    if _load(file)[0] != _MAGIC:
        raise _FormatError("it does not begin as PyTorch's files do")
    version, _ = _load(file)
    if version != _LEGACY_VERSION:
        raise _FormatError(f"its version is {version!r}, expected {_LEGACY_VERSION}")
    machine, _ = _load(file)
    if not isinstance(machine, Mapping) or not isinstance(machine.get("little_endian"), bool):
        raise _FormatError("it lacks the description of the machine that wrote it")
    order = "little" if machine["little_endian"] else "big"
    tree, dtypes = _load(file)
    keys, _ = _load(file)
    size = os.fstat(file.fileno()).st_size
    contents: dict[str, np.ndarray] = {}
    for key in keys if isinstance(keys, list) else ():
        header = file.read(8)
        if len(header) < 8 or not isinstance(key, str) or key not in dtypes:
            raise _FormatError(f"the storage {str(key)[:60]!r} is missing")
        if (dtype := dtypes[key]) is None:
            raise _FormatError(f"the storage {key!r} is of an unknown dtype")
        (count,) = struct.unpack("<q" if order == "little" else ">q", header)
        if not 0 <= count * dtype.itemsize <= size - file.tell():
            raise _FormatError("it is truncated")
        contents[key] = _decoded(file.read(count * dtype.itemsize), dtype, order)

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
        The pickled value, with mappings as dicts, sequences as lists, the file's dtypes, and
        `Unreadable` in place of objects and tensors of other classes.

    Raises:
        UserError: the file is absent, damaged or of another format.
    """
    try:
        with open_file(path) as file:
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
