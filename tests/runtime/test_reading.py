"""Files that the user names: regular ones, of a bounded size."""

from __future__ import annotations

import io
import os
import pickle
import socket
import zipfile

import pytest

from adaptive_nets.runtime.reading import (
    check_file,
    check_pickle,
    check_unpacked_size,
    file_sha256,
    open_file,
    parse_json,
    read_file,
    read_json_file,
)

pytestmark = pytest.mark.core


@pytest.mark.parametrize("size", [0, 1, 100, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_whole_files_up_to_the_limit(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert read_file(path, limit=size) == path.read_bytes()
    assert read_file(str(path)) == path.read_bytes()
    if size:
        with pytest.raises(OSError, match=f"expected at most {size - 1:,}"):
            read_file(path, limit=size - 1)


@pytest.mark.parametrize("read", [check_file, open_file, read_file, file_sha256, read_json_file])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fifo", "it is a FIFO, expected a regular file"),
        ("socket", "it is a socket"),
        ("zero", "it is a character device"),
        ("folder", "Is a directory"),
        ("absent", "No such file"),
        ("circle", "Too many levels"),
        ("nul", "null"),
    ],
)
def test_anything_else_is_named_without_waiting(tmp_path, read, kind, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(tmp_path / "real")
        path.symlink_to(tmp_path / "real")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("file")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "nul":
        path = tmp_path / "a\0b"
    with pytest.raises(OSError, match=message):
        read(path)


def test_a_file_of_the_kernel_has_no_size(tmp_path):
    assert b"Name:" in read_file("/proc/self/status")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "it is empty"),
        ("{", "not JSON at line 1"),
        (b"\xff", "not UTF-8 at byte 0"),
        ("[" * 100_000, "nested too deeply"),
        ("NaN", "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not"),
        ("1e999", "out of the range"),
        ("9" * 5000, "digits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
    ],
)
def test_what_is_no_json(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_json(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null, "ä"]}', encoding="utf-8")
    assert read_json_file(tmp_path / "a.json") == {"a": [1, 2.5, None, "ä"]}


def test_the_size_of_an_archive_is_compared_before_it_is_unpacked():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(1 << 20))
        file.writestr("b", bytes(1 << 20))
    with zipfile.ZipFile(content) as file:
        check_unpacked_size(file, limit=2 << 20)
        with pytest.raises(ValueError, match="unpacks to 2,097,152 bytes"):
            check_unpacked_size(file, limit=(2 << 20) - 1)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(protocol):
    value = [{"a": (i, str(i), [i])} for i in range(400)]
    file = io.BytesIO(b"before" + pickle.dumps(value, protocol))
    file.seek(6)
    check_pickle(file)
    assert pickle.load(file) == value


@pytest.mark.parametrize(
    "content", [b"\x80\x02]r\xff\xff\xff\x7f.", b"(lp99999999\n.", b"]q\xff.", b"]", b"\xfe."]
)
def test_pickles_that_reserve_memory_or_are_cut_off(content):
    with pytest.raises(ValueError):  # noqa: PT011 - also those of the library
        check_pickle(io.BytesIO(content))
