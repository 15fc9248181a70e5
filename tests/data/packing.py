"""The official file formats, written by hand."""

from __future__ import annotations

import struct

import numpy as np


def pack_idx(array: np.ndarray) -> bytes:
    """The idx file of an array of unsigned bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def pack_cifar_pickle(images: np.ndarray, labels: dict[bytes, list[int]]) -> bytes:
    """The Python form of CIFAR as Python 2 wrote it, without the file names.

    Python 3 cannot write Python 2's byte strings, so the pickle is put together by hand.
    """

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    def numbers(values: list[int]) -> bytes:
        return b"](" + b"".join(b"K" + bytes([value]) for value in values) + b"e"

    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    shape = b"".join(b"M" + struct.pack("<H", size) for size in planes.shape) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text(planes.tobytes()) + b"tb"
    )
    items = text(b"data") + array
    for key, values in labels.items():
        items += text(key) + numbers(values)
    return b"\x80\x02}(" + items + b"u."
