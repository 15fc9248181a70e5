"""Reader of safetensors files of any origin, damaged ones included."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from safetensors import safe_open

from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.reading import open_file, parse_json

DTYPES = (
    "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL",
)  # fmt: skip
"""Dtypes that become arrays."""

_EXPECTED = f"one of {', '.join(DTYPES)}"
_METADATA = "__metadata__"
_HEADER_LIMIT = 100_000_000  # Of the format itself.


def _read_header(path: Path) -> dict[str, object]:
    """Reads the header, which the library accepts with a name twice.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no whole header.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if len(start) < 8:
            raise ValueError(f"it has {size} bytes, expected at least 8 for the header's length")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, _HEADER_LIMIT):
            raise ValueError(f"its header has {length:,} bytes by its length, the file {size:,}")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the strings in the header of a safetensors file.

    Raises:
        OSError: the file does not exist, cannot be read or is not a regular file.
        ValueError: it is damaged or not a safetensors file.
    """
    metadata = _read_header(path).get(_METADATA, {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are not a JSON object")
    return {name: text for name, text in metadata.items() if isinstance(text, str)}


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray | Unreadable]]:
    """Reads a safetensors file.

    Memory is taken for tensors that the file holds only: the library checks every offset against
    the size of the file.

    Returns:
        The strings in the header, and name -> array; `Unreadable` for a dtype that is not in
        `DTYPES`.

    Raises:
        OSError: the file does not exist, cannot be read or is not a regular file.
        ValueError: it is damaged or not a safetensors file.
    """
    metadata = read_metadata(path)
    tensors: dict[str, np.ndarray | Unreadable] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                if dtype in DTYPES:
                    tensors[name] = file.get_tensor(name)
                else:
                    tensors[name] = Unreadable(f"a tensor of the dtype {dtype}", _EXPECTED)
    except OSError:
        raise
    except Exception as error:  # The library and NumPy raise many types.
        raise ValueError(str(error) or type(error).__name__) from error
    return metadata, tensors
