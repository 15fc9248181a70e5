"""Readers of the binary and the Python form of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary, read_bytes
from adaptive_nets.runtime.reading import READ_LIMIT, check_pickle

_PIXELS = 3 * 32 * 32
_BESIDE = 256  # Bytes beside the pixels of an example, at most.
_BESIDE_ALL = 1 << 20


def read_cifar_binary(
    path: str | Path, *, num_labels: int, count: int | None = None, md5: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of the binary form: per example its labels, then three colour planes.

    Args:
        path: file to read.
        num_labels: label bytes per example: 1 in CIFAR-10; 2 (coarse, fine) in CIFAR-100.
        count: expected number of examples; None accepts any.
        md5: expected md5; None skips the check.

    Returns:
        Images uint8[N, 32, 32, 3] and labels uint8[N, num_labels].

    Raises:
        AbsentDataError: the file does not exist.
        DamagedDataError: the file is unreadable, has another size or is not the official file.
    """
    path = Path(path)
    row = num_labels + _PIXELS
    content = read_bytes(path, limit=_limit(count, row))
    size = f"{count * row}" if count is not None else f"a multiple of {row}"
    if (count is not None and len(content) != count * row) or len(content) % row or not content:
        raise DamagedDataError(
            f"{path}: {len(content)} bytes, expected {size} ({num_labels} + {_PIXELS} an example); "
            "it is truncated or another file, fetch the official file again"
        )
    _check_sum(path, content, md5)
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return _to_nhwc(rows[:, num_labels:]), rows[:, :num_labels]


def read_cifar_python(
    path: str | Path,
    *,
    label_keys: tuple[str, ...],
    count: int | None = None,
    md5: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of the Python form, a pickle, without running code from it.

    Args:
        path: file to read.
        label_keys: keys of the label lists: ``("labels",)`` in CIFAR-10, ``("coarse_labels",
            "fine_labels")`` in CIFAR-100.
        count: expected number of examples; None accepts any.
        md5: expected md5; None skips the check.

    Returns:
        Images uint8[N, 32, 32, 3] and labels uint8[N, len(label_keys)].

    Raises:
        AbsentDataError: the file does not exist.
        DamagedDataError: the file is unreadable, is not such a pickle, refers to anything but plain
            arrays, or is not the official file.
    """
    path = Path(path)
    content = read_bytes(path, limit=_limit(count, _PIXELS))
    _check_sum(path, content, md5)
    batch = _unpickle(path, content)
    keys = ("data", *label_keys)
    if not isinstance(batch, dict) or any(key.encode() not in batch for key in keys):
        raise DamagedDataError(
            f"{path}: expected a pickled dict with {', '.join(keys)}; "
            "it is another file, fetch the official file again"
        )
    try:
        pixels = batch[b"data"].to_array()
        labels = np.array([batch[key.encode()] for key in label_keys], np.int64)
        if labels.ndim != 2 or pixels.shape != (labels.shape[1], _PIXELS):
            raise ValueError(f"data of shape {pixels.shape} for {labels.shape[1:]} labels")
        if labels.min(initial=0) < 0 or labels.max(initial=0) > 255:
            raise ValueError("labels out of range")
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DamagedDataError(
            f"{path}: expected uint8 data of N x {_PIXELS} and N labels, found otherwise "
            f"({error_summary(error)}); fetch the official file again"
        ) from error
    if count is not None and len(pixels) != count:
        raise DamagedDataError(
            f"{path}: {len(pixels)} examples, expected {count}; "
            "it is another file, fetch the official file again"
        )
    return _to_nhwc(pixels), np.ascontiguousarray(labels.T, np.uint8)


def _limit(count: int | None, row: int) -> int:
    """Returns the most bytes of a file of so many examples: pixels, labels and file names."""
    return READ_LIMIT if count is None else count * (row + _BESIDE) + _BESIDE_ALL


class _Array:
    """Inert stand-in for numpy.ndarray and its reconstruction function."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any):
        self.state = state

    def to_array(self) -> np.ndarray:
        """Converts the pickled state to an array; accepts plain unsigned bytes only."""
        _, shape, dtype, in_columns, content = self.state
        if not isinstance(dtype, _Dtype) or dtype.code != b"u1" or in_columns:
            raise ValueError("the array does not hold unsigned bytes in rows")
        return np.frombuffer(content, np.uint8).reshape(shape)


class _Dtype:
    """Inert stand-in for numpy.dtype."""

    def __init__(self, code: Any = None, *_: Any):
        self.code = code

    def __setstate__(self, state: Any):
        """Ignores byte order and alignment, which do not affect unsigned bytes."""


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that resolves the three names of a pickled array to inert stand-ins."""

    _KNOWN = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._KNOWN[module_name, global_name]
        except KeyError:
            raise _RefusedGlobalError(f"{module_name}.{global_name}") from None


class _RefusedGlobalError(Exception):
    """A pickle refers to a name that CIFAR files do not contain."""


def _unpickle(path: Path, content: bytes) -> Any:
    try:
        check_pickle(io.BytesIO(content))
        return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _RefusedGlobalError as error:
        raise DamagedDataError(
            f"{path}: refused, because the pickle asks for {error}; "
            "expected only arrays, lists and numbers: it is not an official file, do not use it"
        ) from error
    except Exception as error:  # A broken pickle may raise almost any exception.
        raise DamagedDataError(
            f"{path}: not a whole pickle ({error_summary(error)}); expected CIFAR's Python form, "
            "fetch the official file again"
        ) from error


def _check_sum(path: Path, content: bytes, md5: str | None) -> None:
    if md5 is None:
        return
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DamagedDataError(
            f"{path}: {len(content)} bytes with md5 {found}, expected md5 {md5}; "
            "it is damaged or not the official file, fetch it again"
        )


def _to_nhwc(planes: np.ndarray) -> np.ndarray:
    """Converts colour planes uint8[N, 3 * 32 * 32] to uint8[N, 32, 32, 3]."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
