"""Reader of ``torch.save`` files that needs no PyTorch and runs no code from the file.

Such a file is a pickle whose tensors refer to storages outside it: members of a zip archive or, in
the older form, byte ranges behind the pickle. `torch_objects` reads the pickle.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from adaptive_nets.models.weights.inert import Inert, class_name
from adaptive_nets.models.weights.torch_objects import FormatError, Storage, Tensor, load_pickle
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import open_file

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def _materialise(tensor: Tensor, values: np.ndarray) -> np.ndarray:
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
        raise FormatError(f"a tensor of size {tensor.size} goes beyond its storage")
    strides = [step * values.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(values, tensor.size, strides).copy()


_PLAIN = (bool, int, float, complex, str, bytes, bytearray, set, frozenset, type(None), Unreadable)


def _resolve(tree: Any, read: Callable[[Storage], np.ndarray]) -> Any:
    """Replaces the unread tensors in nested containers by arrays."""
    # Shared nodes are resolved once, since nested sharing would otherwise take exponential time.
    done: dict[int, Any] = {}

    def resolve(node: Any) -> Any:
        if id(node) not in done:
            if isinstance(node, Tensor):
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
            raise FormatError(
                "its members are compressed; expected the uncompressed archive of PyTorch"
            )
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise FormatError("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = "little"
        if f"{folder}byteorder" in members:
            order = archive.read(f"{folder}byteorder").decode("ascii", "replace")
        if order not in ("little", "big"):
            raise FormatError(f"its byte order is {order!r}; expected 'little' or 'big'")
        tree, _ = load_pickle(io.BytesIO(archive.read(pickles[0])))
        contents: dict[tuple[str, np.dtype], np.ndarray] = {}

        def read(storage: Storage) -> np.ndarray:
            key = storage.key, storage.dtype
            if key not in contents:
                name = f"{folder}data/{storage.key}"
                if name not in members:
                    raise FormatError(f"the storage {storage.key!r} is missing")
                contents[key] = _decoded(archive.read(name), storage.dtype, order)
            return contents[key]

        return _resolve(tree, read)


def _decoded(content: bytes, dtype: np.dtype, order: str) -> np.ndarray:
    if len(content) % dtype.itemsize:
        raise FormatError(f"a storage of {dtype} has {len(content)} bytes")
    values = np.frombuffer(content, dtype)
    return values if order == "little" else values.byteswap()


def _from_sequence(file: IO[bytes]) -> Any:
    """Reads the form before PyTorch 1.6: four pickles, the storage keys, the storages."""
    if load_pickle(file)[0] != _MAGIC:
        raise FormatError("it does not begin as PyTorch's files do")
    version, _ = load_pickle(file)
    if version != _LEGACY_VERSION:
        raise FormatError(f"its version is {version!r}, expected {_LEGACY_VERSION}")
    machine, _ = load_pickle(file)
    if not isinstance(machine, Mapping) or not isinstance(machine.get("little_endian"), bool):
        raise FormatError("it lacks the description of the machine that wrote it")
    order = "little" if machine["little_endian"] else "big"
    tree, dtypes = load_pickle(file)
    keys, _ = load_pickle(file)
    size = os.fstat(file.fileno()).st_size
    contents: dict[str, np.ndarray] = {}
    for key in keys if isinstance(keys, list) else ():
        header = file.read(8)
        if len(header) < 8 or not isinstance(key, str) or key not in dtypes:
            raise FormatError(f"the storage {str(key)[:60]!r} is missing")
        if (dtype := dtypes[key]) is None:
            raise FormatError(f"the storage {key!r} is of an unknown dtype")
        (count,) = struct.unpack("<q" if order == "little" else ">q", header)
        if not 0 <= count * dtype.itemsize <= size - file.tell():
            raise FormatError("it is truncated")
        contents[key] = _decoded(file.read(count * dtype.itemsize), dtype, order)

    def read(storage: Storage) -> np.ndarray:
        if storage.key not in contents:
            raise FormatError(f"the storage {storage.key!r} is missing")
        return contents[storage.key]

    return _resolve(tree, read)


def read_torch(path: str | Path) -> Any:
    """Reads a ``torch.save`` file: containers, numbers, strings, and tensors as arrays.

    Args:
        path: *.pt, *.pth or *.th file of either form.

    Returns:
        The pickled value, with mappings as dicts, sequences as lists, the file's dtypes, and
        `Unreadable` in place of objects and tensors of other classes.

    Raises:
        UserError: the file is absent, damaged or of another format.
    """
    path = Path(path)
    try:
        with open_file(path) as file:
            is_archive = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return _from_archive(file) if is_archive else _from_sequence(file)
    except FormatError as error:
        raise UserError(f"weights file {path} is refused: {error}") from error
    except OSError as error:
        raise UserError(f"weights file {path}: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle or archive may raise almost any exception.
        raise UserError(
            f"weights file {path} is damaged or not a PyTorch file "
            f"({type(error).__name__}: {error})"
        ) from error
