import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
from packing import pack_idx

from adaptive_nets.data.idx import read_idx

ARRAY = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("array", [ARRAY, ARRAY[:, 0, 0], ARRAY[:0]])
def test_reads_what_was_written(tmp_path, packed, array):
    content = pack_idx(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = read_idx(path, shape=array.shape, md5=md5(content))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", ["starts with nothing", "00 00 08"]),
        (b"<!DOCTYPE html><html>", ["starts with 3c 21 44 4f", "expected an idx file"]),
        (b"\0\0\x08\0", ["starts with 00 00 08 00"]),
        (b"\0\0\x0d\x01" + struct.pack(">If", 1, 1.0), ["idx type 0x0d", "expected 0x08"]),
        (b"\0\0\x08\x03\0\0", ["6 bytes, expected at least 16", "truncated"]),
        (pack_idx(ARRAY)[:-1], ["75 bytes", "expected 76", "5 x 4 x 3", "truncated"]),
        (pack_idx(ARRAY) + b"\0", ["77 bytes", "expected 76", "trailing bytes"]),
        (pack_idx(ARRAY[:, :2]), ["5 x 2 x 3", "expected 5 x 4 x 3"]),
        (pack_idx(ARRAY[:, 0]), ["5 x 3", "expected 5 x 4 x 3"]),
        (b"\0\0\x08\x03" + b"\xff" * 12, ["4294967295 x", "expected 5 x 4 x 3"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_refuses_other_content(tmp_path, complains, packed, content, texts):
    path = tmp_path / "digits"
    path.write_bytes(gzip.compress(content) if packed else content)
    complains(lambda: read_idx(path, shape=ARRAY.shape), path, *texts)


def test_refuses_damaged_gzip(tmp_path, complains):
    path = tmp_path / "cut.gz"
    whole = gzip.compress(pack_idx(ARRAY))
    for content in (whole[:-4], whole[: len(whole) // 2], whole[:12], whole[:2]):
        path.write_bytes(content)
        complains(lambda: read_idx(path), path, "damaged gzip", "fetch")
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # In the checksum at the end.
    path.write_bytes(bytes(flipped))
    complains(lambda: read_idx(path), path, "damaged gzip")


def test_checks_sums(tmp_path, complains):
    content = pack_idx(ARRAY)
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(content, mtime=0))
    packed_sum = md5(path.read_bytes())
    read_idx(path, gz_md5=packed_sum)
    complains(lambda: read_idx(path, md5="0" * 32), path, md5(content), "0" * 32)
    complains(lambda: read_idx(path, gz_md5="0" * 32), path, packed_sum, "0" * 32)
    # The content counts where its sum is known, however it was packed.
    read_idx(path, md5=md5(content), gz_md5="0" * 32)


def test_missing_file_folder_and_no_file(tmp_path, complains):
    complains(lambda: read_idx(tmp_path / "none"), tmp_path / "none", "does not exist")
    complains(lambda: read_idx(tmp_path), tmp_path, "is a directory")


def test_a_bomb_is_refused_at_its_header(tmp_path, complains, monkeypatch):
    """The size in the header is compared with the expected one before unpacking."""
    path = tmp_path / "bomb.gz"
    header = b"\0\0\x08\x03" + struct.pack(">III", 60000, 1 << 16, 1 << 16)
    path.write_bytes(gzip.compress(header + bytes(1 << 22)))
    read: list[int] = []
    unpack = gzip.GzipFile.read

    def counting(self, size=-1):
        read.append(size)
        return unpack(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    complains(lambda: read_idx(path, shape=(60000, 28, 28)), path, "expected 60000 x 28 x 28")
    complains(lambda: read_idx(path), path, "which cannot hold")
    assert sum(read) < 100
    # The right header with more behind it is read to one byte beyond its end.
    path.write_bytes(gzip.compress(pack_idx(ARRAY) + bytes(1 << 22)))
    complains(lambda: read_idx(path, shape=ARRAY.shape), path, "trailing bytes")
    assert sum(read) < 400
    # A name in the header of the gzip file has no end, or the file is larger than its content.
    path.write_bytes(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (3 << 20))
    complains(lambda: read_idx(path, shape=ARRAY.shape), path, "expected at most")


def test_files_of_any_size_are_refused_before_they_are_read(tmp_path, complains):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 43)
    complains(lambda: read_idx(path, shape=ARRAY.shape), path, "8,796,093,022,208 bytes")
    complains(lambda: read_idx(path), path, "expected at most")


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_is_no_file_is_refused_before_it_is_read(tmp_path, complains, kind):
    path = tmp_path / "digits"
    os.mkfifo(path) if kind == "FIFO" else path.symlink_to("/dev/zero")
    complains(lambda: read_idx(path), path, kind, "expected a regular file")
