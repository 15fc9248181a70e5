"""Damaged JSON: one line that names the file and the defect."""

from __future__ import annotations

import os

import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.json_files import read_json_lines, read_json_object

DAMAGES = {
    "empty": (b"", "it is empty"),
    "cut off": (b'{"a": [1, 2', "it is not JSON at line 1"),
    "binary": (bytes(range(200, 250)), "it is not UTF-8 at byte 0"),
    "not UTF-8": (b'{"\xe9": 1}', "it is not UTF-8 at byte 2"),
    "list": (b"[1]", "it holds a list; expected an object"),
    "number": (b"7", "it holds a number; expected an object"),
    "null": (b"null", "it holds null; expected an object"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "deep": (b"[" * 100_000, "it is nested too deeply"),
    "huge number": (b'{"a": 1' + b"0" * 5000 + b"}", "thousands of digits"),
    "missing entry": (b'{"b": 1}', "it has no entry 'a'"),
    "wrong type": (b'{"a": "1"}', "its entry 'a' is a text"),
    "truth value": (b'{"a": true}', "its entry 'a' is a truth value"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_named(tmp_path, damage):
    content, defect = DAMAGES[damage]
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json_object(path, remedy="choose another folder", entries={"a": int})
    message = str(error.value)
    assert message.startswith(f"{path} is damaged: ")
    assert defect in message
    assert message.endswith("; choose another folder")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, make in ((tmp_path / "folder", os.mkdir), (tmp_path / "fifo", os.mkfifo)):
        make(path)
        for read in (read_json_lines, lambda path: read_json_object(path, remedy="move it")):
            with pytest.raises(UserError, match=f"{path} cannot be read: (Is|it is) a"):
                read(path)
    with pytest.raises(UserError, match="No such file"):
        read_json_object(tmp_path / "none", remedy="move it")


def test_an_object_is_read(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"a": 1, "b": [null, "é"]}', encoding="utf-8")
    assert read_json_object(path, remedy="", entries={"a": int}) == {"a": 1, "b": [None, "é"]}


def test_damaged_lines_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_json_lines(path) == []
    good = b'{"step": 1}\n{"step": 2, "x": null}\n'
    bad = b'\xff\n[3]\n{"step": "3"}\n{"step": true}\n{"x": 1}\nnull\n\n'
    path.write_bytes(good + bad + b'{"step": 4}\n{"step": 5')
    lines = read_json_lines(path, entries={"step": int})
    assert lines == [{"step": 1}, {"step": 2, "x": None}, {"step": 4}]
