"""Unpickler for the pickles in ``torch.save`` files; it runs no code from them.

A pickle is a program that calls whatever it names. This unpickler resolves the names of tensors and
plain containers to functions of its own and every other name to an inert class, see `inert`:
nothing is imported and nothing runs.
"""

from __future__ import annotations

import collections
import dataclasses
import pickle
from collections.abc import Callable
from typing import IO, Any

import ml_dtypes
import numpy as np

from adaptive_nets.models.weights.inert import Inert, class_name, inert_class, rebuild
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.reading import check_pickle

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


class FormatError(Exception):
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
class Storage(_Fixed):
    """Unread storage, identified by its key; `start` is the offset of a view."""

    key: str
    dtype: np.dtype
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor(_Fixed):
    """Strided view of an unread storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(v) is int and v >= 0 for v in values):
        raise FormatError(f"a tensor has the size or stride {str(values)[:60]}")
    return values


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    if isinstance(storage, Unreadable):
        return storage
    if not isinstance(storage, Storage):
        raise FormatError("a tensor has no storage")
    size, stride = _whole_numbers(size), _whole_numbers(stride)
    (offset,) = _whole_numbers((offset,))
    if len(size) != len(stride):
        raise FormatError(f"a tensor has the size {size} and the stride {stride}")
    return Tensor(storage, offset, size, stride)


def _rebuild_tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any,
    *_: Any,
) -> Any:  # fmt: skip
    """Rebuilds a tensor of untyped storage, the form of dtypes without a storage class."""
    if isinstance(storage, Storage) and not isinstance(dtype, _Dtype):
        return Unreadable(f"a tensor of {class_name(dtype)}")
    if isinstance(storage, Storage):
        storage = dataclasses.replace(storage, dtype=dtype.dtype)
    return _rebuild_tensor(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, (Tensor, Unreadable, Inert)):
        raise FormatError("a parameter has no tensor")
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

    def persistent_load(self, pid: Any) -> Storage | Unreadable:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), *rest):
                # In old files a storage may be a view of another: (key, offset, size).
                view = rest[2] if len(rest) > 2 else None
                start = 0
                if view is not None:
                    if not isinstance(view, tuple) or len(view) != 3:
                        raise FormatError(f"it has a view of a storage, {str(view)[:60]}")
                    start = _whole_numbers((view[1],))[0]
                self.dtypes[key] = dtype
                return Storage(key, dtype, start)
            case ("storage", kind, str(key), *_):
                self.dtypes[key] = None
                return Unreadable(f"a tensor of {class_name(kind)}")
        raise FormatError(f"it has a storage of an unknown kind, {str(pid)[:60]!r}")


def load_pickle(file: IO[bytes]) -> tuple[Any, dict[str, np.dtype | None]]:
    """Reads one pickle: the value, and the dtypes of its storages."""
    check_pickle(file)
    unpickler = _Unpickler(file)
    return unpickler.load(), unpickler.dtypes
