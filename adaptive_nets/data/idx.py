"""Reader of idx files, the format of MNIST, with or without gzip."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from adaptive_nets.data.catalogue import dataset_of_md5
from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary, read_bytes
from adaptive_nets.runtime.reading import READ_LIMIT

_UNSIGNED_BYTE = 0x08
_PIECE = 1 << 24
_HEADER_LIMIT = 1 << 20  # Bytes of an idx file or gzip file beside its content.
_DEFLATE_LIMIT = 1032  # Bytes that one byte of a gzip file can unpack to.
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(
    path: str | Path,
    *,
    shape: tuple[int, ...] | None = None,
    md5: str | None = None,
    gz_md5: str | None = None,
) -> np.ndarray:
    """Reads an idx file of unsigned bytes.

    Compression is detected by content, not by name.

    Args:
        path: file to read.
        shape: expected shape, examples first; None accepts any.
        md5: expected md5 of the uncompressed content; None skips the check.
        gz_md5: expected md5 of a gzip file, used if `md5` is None.

    Returns:
        uint8 array of the shape in the file's header, read-only.

    Raises:
        AbsentDataError: the file does not exist.
        DamagedDataError: the file is unreadable, truncated or corrupt, has another type, shape or
            size, or is not the official file.
    """
    # Incompressible content grows by less than a thousandth.
    path = Path(path)
    limit = READ_LIMIT if shape is None else math.prod(shape) * 1001 // 1000 + _HEADER_LIMIT
    raw = read_bytes(path, limit=limit)
    packed = raw.startswith(_GZIP_MAGIC)
    content = _unpack(path, raw, shape) if packed else raw
    found = _check_header(path, content, shape)
    start = 4 + 4 * len(found)
    size = start + math.prod(found)
    if len(content) != size:
        fault = "it is truncated" if len(content) < size else "it has trailing bytes"
        raise DamagedDataError(
            f"{path}: {len(content)} bytes{' unpacked' * packed}, expected {size} "
            f"for {_shape_text(found)}; {fault}, fetch the official file again"
        )
    _check_sums(path, raw if packed else None, content, md5=md5, gz_md5=gz_md5)
    return np.frombuffer(content, np.uint8, offset=start).reshape(found)


def _check_header(path: Path, content: bytes, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Returns the shape in the header.

    Raises:
        DamagedDataError: the header is damaged or has another shape than the expected one.
    """
    found = _read_header(path, content)
    if shape is not None and found != shape:
        raise DamagedDataError(
            f"{path}: its header says {_shape_text(found)}, expected {_shape_text(shape)} "
            "unsigned bytes; it is another file, fetch the official file again"
        )
    return found


def _unpack(path: Path, raw: bytes, shape: tuple[int, ...] | None) -> bytes:
    """Unpacks a gzip file, no more than its header announces, which is compared first."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            header = file.read(4)
            header += file.read(4 * header[3]) if len(header) == 4 else b""
            size = math.prod(_check_header(path, header, shape))
            if size > len(raw) * _DEFLATE_LIMIT:
                raise EOFError(f"{len(raw):,} bytes, which cannot hold {size:,}")
            # Reading one byte more than expected detects trailing bytes and makes gzip verify its
            # checksum, while the amount stays bounded.
            left, pieces = size + 1, [header]
            while left and (piece := file.read(min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
    except (EOFError, OSError, zlib.error) as error:
        raise DamagedDataError(
            f"{path}: damaged gzip file ({error_summary(error)}); expected a whole one, "
            "fetch the official file again"
        ) from error


def _read_header(path: Path, content: bytes) -> tuple[int, ...]:
    """Reads the shape from the magic number and the sizes behind it."""
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
        raise DamagedDataError(
            f"{path}: starts with {magic.hex(' ') or 'nothing'}, expected an idx file "
            "(00 00 08 and the number of dimensions); fetch the official file again"
        )
    if magic[2] != _UNSIGNED_BYTE:
        raise DamagedDataError(
            f"{path}: idx type 0x{magic[2]:02x}, expected 0x08 (unsigned bytes); "
            "fetch the official file again"
        )
    end = 4 + 4 * magic[3]
    if len(content) < end:
        raise DamagedDataError(
            f"{path}: {len(content)} bytes, expected at least {end} for its header; "
            "it is truncated, fetch the official file again"
        )
    return tuple(int(size) for size in np.frombuffer(content[4:end], ">u4"))


def _check_sums(
    path: Path, raw: bytes | None, content: bytes, *, md5: str | None, gz_md5: str | None
) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None:
        if found != md5:
            raise DamagedDataError(
                f"{path}: md5 of the content is {found}, expected {md5}; "
                "it is damaged or not the official file, fetch it again"
            )
        return
    if (owner := dataset_of_md5(found)) is not None:
        raise DamagedDataError(
            f"{path}: this is a file of {owner}, expected a file of another set; "
            "put the right file there"
        )
    if raw is not None and gz_md5 is not None:
        packed_sum = hashlib.md5(raw, usedforsecurity=False).hexdigest()
        if packed_sum != gz_md5:
            raise DamagedDataError(
                f"{path}: md5 is {packed_sum}, expected {gz_md5}; "
                "it is damaged or not the official file, fetch it again"
            )


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
