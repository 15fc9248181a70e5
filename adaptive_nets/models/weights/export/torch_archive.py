"""Writer of state dicts in the form of ``torch.save`` since PyTorch 1.6, without PyTorch.

The file is an uncompressed zip archive: a pickle of protocol 2 that names tensors and their
storages, and one member with the bytes of each storage. The pickle uses the few instructions and
names that ``torch.load(..., weights_only=True)`` accepts.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Mapping

import numpy as np

_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
# Storages begin at multiples of this many bytes, so that PyTorch can map them into memory.
_ALIGNMENT = 64
_FOLDER = "network"
_DATE = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = 30
_EXTRA_HEADER = 4
_ORDERED = b"ccollections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE


def _text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return pickle.LONG1 + bytes([len(encoded)]) + encoded


def _numbers(values: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_number, values)) + pickle.TUPLE


def _tensor(array: np.ndarray, key: str) -> bytes:
    """Returns the instructions that rebuild a contiguous tensor from the storage `key`."""
    kind = _STORAGES[array.dtype.name]
    steps = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
    storage = (
        pickle.MARK + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu")
        + _number(array.size) + pickle.TUPLE + pickle.BINPERSID
    )  # fmt: skip
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + storage + _number(0)
        + _numbers(array.shape) + _numbers(steps) + pickle.NEWFALSE + _ORDERED
        + pickle.TUPLE + pickle.REDUCE
    )  # fmt: skip


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a member whose content begins at a multiple of the alignment."""
    info = zipfile.ZipInfo(f"{_FOLDER}/{name}", date_time=_DATE)
    start = archive.fp.tell() + _LOCAL_HEADER + len(info.filename.encode()) + _EXTRA_HEADER  # pyright: ignore[reportOptionalMemberAccess]
    padding = -start % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, content, zipfile.ZIP_STORED)


def torch_archive(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns a file that ``torch.load`` reads as an OrderedDict of tensors.

    Args:
        tensors: name -> array of a dtype that PyTorch has.

    Raises:
        ValueError: an array has another dtype.
    """
    program = [pickle.PROTO + b"\x02", _ORDERED, pickle.MARK]
    arrays: list[np.ndarray] = []
    for name, tensor in tensors.items():
        array = np.asarray(tensor, order="C")
        if array.dtype.name not in _STORAGES:
            raise ValueError(
                f"tensor {name!r} has the dtype {array.dtype}; expected {', '.join(_STORAGES)}"
            )
        program += [_text(name), _tensor(array, str(len(arrays)))]
        arrays.append(array)
    program += [pickle.SETITEMS, pickle.STOP]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", b"".join(program))
        _add(archive, "byteorder", sys.byteorder.encode())
        for key, array in enumerate(arrays):
            _add(archive, f"data/{key}", array.tobytes())
        _add(archive, "version", b"3\n")
    return file.getvalue()
