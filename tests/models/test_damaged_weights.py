"""Damaged files of networks: one line or the same network, never another one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct

import numpy as np
import pytest
from safetensors.numpy import load, save

from adaptive_nets.models.weights.header import FORMAT
from adaptive_nets.models.weights.stored import InputNormalisation, load_network, save_network
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.fixture(params=[False, True], ids=["dense", "sparse"])
def file(request, tmp_path):
    rng = np.random.default_rng(0)
    kernel = (rng.normal(size=(5, 3)) * (rng.random((5, 3)) < 0.4)).astype(np.float32)
    path = tmp_path / "network.safetensors"
    save_network(
        path,
        model="lenet_300_100",
        num_classes=3,
        variables={"params": {"fc": {"kernel": kernel, "bias": np.ones(3, np.float32)}}},
        normalisation=InputNormalisation(
            255.0, np.full((1, 1, 1), 0.13, np.float32), np.ones((1, 1, 1), np.float32)
        ),
        sparse=request.param,
        note={"seed": 3, "data": "mnist"},
    )
    return path


def described(stored):
    params = stored.variables["params"]["fc"]
    arrays = (params["kernel"], params["bias"], stored.normalisation.offset,
              stored.normalisation.scale)  # fmt: skip
    return (
        stored.model, stored.num_classes, stored.note, stored.stored_weights,
        stored.normalisation.pixel_scale, stored.normalisation.per_image,
        *((a.shape, a.dtype, a.tobytes()) for a in arrays),
    )  # fmt: skip


def attempt(path, content, expected):
    path.write_bytes(content)
    try:
        found = load_network(path)
    except UserError as error:
        message = str(error)
    else:
        assert described(found) == expected
        return True
    assert str(path) in message
    assert "\n" not in message
    return False


def places(content, file):
    """Every byte of the sparse file, some of the dense one."""
    sparse = b"fc/kernel.gaps" in file.read_bytes()
    return range(0, len(content), 1 if sparse else 11)


def test_every_flipped_byte_is_noticed_or_harmless(file):
    whole, expected = file.read_bytes(), described(load_network(file))
    for place in places(whole, file):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        # Nothing but spaces behind the header does no harm.
        if attempt(file, bytes(content), expected):
            assert whole[place : place + 1] == b" "


def test_every_truncation_is_noticed(file):
    whole, expected = file.read_bytes(), described(load_network(file))
    for length in places(whole, file)[::3]:
        assert not attempt(file, whole[:length], expected)
    assert not attempt(file, whole + b"\0", expected)


def digest(entries, tensors, *, version):
    sums = hashlib.sha256()
    if version != 1:
        rest = {name: entry for name, entry in entries.items() if name != "digest"}
        sums.update(json.dumps(rest, sort_keys=True).encode() + b"\n")
    for name in sorted(tensors):
        sums.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        sums.update(tensors[name].tobytes())
    return sums.hexdigest()


def rewrite(path, change, *, version=2, change_tensors=None):
    """Writes a changed header whose digest is right again."""
    tensors = load(path.read_bytes())
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    entries = json.loads(metadata[FORMAT]) | {"version": version}
    if change_tensors is not None:
        change_tensors(tensors)
    change(entries)
    if "digest" in entries:
        entries["digest"] = digest(entries, tensors, version=version)
    path.write_bytes(save(tensors, metadata={FORMAT: json.dumps(entries)}))


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_both_versions_are_read(file, version):
    expected = described(load_network(file))
    rewrite(file, lambda entries: None, version=version)
    assert described(load_network(file)) == expected


DEEP: list = []
for _ in range(600):
    DEEP = [DEEP]
KERNEL = "params/fc/kernel"
VALUES = [None, True, -1, 0, 1.5, 10**30, "x", [], {}, [[1]], {"a": -1}, {KERNEL: [-1]},
          {KERNEL: [10**6, 10**6]}, {KERNEL: [2**62, 4]}, {KERNEL: [5, "3"]}, {KERNEL: None},
          {"other": [1]}, DEEP]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("entry", ["version", "model", "num_classes", "pixel_scale", "per_image",
                                   "sparse_shapes", "note", "digest", "format"])  # fmt: skip
def test_every_entry_of_a_header_is_checked(file, entry, version):
    """Also where the digest is right: of version 1 it does not cover the header."""
    whole = file.read_bytes()
    for value in VALUES:
        file.write_bytes(whole)
        rewrite(file, lambda entries, value=value: entries.update({entry: value}), version=version)
        if entry != "digest":
            assert "\n" not in message_of(file)
    file.write_bytes(whole)
    rewrite(file, lambda entries: entries.pop(entry), version=version)
    found = message_of(file)
    if entry in ("per_image", "format"):
        assert found == ""
    else:
        assert re.search("missing|damaged|has version", found)


def message_of(file):
    """The error of a file; empty if it is accepted."""
    try:
        load_network(file)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("num_classes", "ten", 'num_classes is "ten" in its header; expected 1 to 1,000,000'),
        ("num_classes", True, "num_classes is true"),
        ("pixel_scale", 0, "pixel_scale is 0 in its header; expected a positive number"),
        ("pixel_scale", "1", 'pixel_scale is "1"'),
        ("per_image", 1, "per_image is 1 in its header; expected true or false"),
        ("model", None, "model is null"),
        ("note", [], r"note is \[\]"),
        ("note", {"overrides": 3}, "overrides and data"),
        ("sparse_shapes", {"a": [2**40, 2**40]}, r"1\.21e\+24 entries .* at most 2,147,483,648"),
        ("sparse_shapes", {"a": [2]}, "lacks values or gaps of a"),
    ],
)
def test_a_wrong_entry_is_named_with_its_value(file, entry, value, message):
    rewrite(file, lambda entries: entries.update({entry: value}))
    with pytest.raises(UserError, match=message):
        load_network(file)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"version": NaN}', '{"version": 1e999}',
                                  '{"a": 1, "a": 1}', '{"version": ' + "9" * 5000 + "}",
                                  '{"a":' * 9000])  # fmt: skip
def test_a_header_that_is_no_object_is_refused(file, text):
    file.write_bytes(save(load(file.read_bytes()), metadata={FORMAT: text}))
    with pytest.raises(UserError, match=r"is damaged|has version") as error:
        load_network(file)
    assert len(str(error.value)) < 500


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        safetensors(b"\xff\xfe{}"),
        safetensors(b'{"a":' * 5000),
        safetensors({"a": ENTRY | {"data_offsets": [0, 2**50]}}, b"12"),
        safetensors({"a": ENTRY | {"data_offsets": [-2, 0]}}, b"12"),
        safetensors({"a": ENTRY | {"data_offsets": [2, 0]}}, b"12"),
        safetensors({"a": ENTRY | {"shape": [2**40, 2**40]}}, b"12"),
        safetensors({"a": ENTRY | {"shape": [-1]}}, b"12"),
        safetensors({"a": ENTRY | {"shape": "2"}}, b"12"),
        safetensors({"a": ENTRY | {"dtype": "Q9"}}, b"12"),
        safetensors({"a": ENTRY, "b": ENTRY}, b"12"),
        safetensors({"a": ENTRY | {"shape": [0] * 100, "data_offsets": [0, 0]}}),
        safetensors({"a": {"dtype": "U8"}}, b"12"),
        safetensors({"a": 3}, b"12"),
        safetensors({"__metadata__": {FORMAT: 3}}),
        safetensors({"__metadata__": []}),
        safetensors(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"1",
        ),
        safetensors(b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,1]}}'),
    ],
)
def test_a_damaged_table_of_tensors_is_one_line(tmp_path, content):
    path = tmp_path / "network.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as safetensors") as error:
        load_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["params/fc/kernel", "params/fc/bias", "input.scale"])
def test_the_first_tensor_that_is_not_finite_is_named(file, value, name):
    def spoil(tensors):
        for found in (name, f"{name}.values"):
            if found in tensors:
                tensors[found] = tensors[found].copy()
                tensors[found].flat[-1] = value

    rewrite(file, lambda entries: None, change_tensors=spoil)
    with pytest.raises(UserError, match=rf"is refused: {name} has {value} at \[") as error:
        load_network(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "gaps",
    [
        np.array([2**63, 1], np.uint64),
        np.array([2**62, 2**62], np.uint64),
        np.array([14, 0], np.uint8),
        np.array([0, 1], np.int8),
        np.array([0.5, 1], np.float32),
        np.array([1], np.uint8),
    ],
)
def test_gaps_stay_within_their_kernel(tmp_path, gaps):
    path = tmp_path / "network.safetensors"
    tensors = {
        "a/kernel.values": np.ones(2, np.float32), "a/kernel.gaps": gaps,
        "input.offset": np.zeros((1, 1, 1), np.float32),
        "input.scale": np.ones((1, 1, 1), np.float32),
    }  # fmt: skip
    entries = {"version": 2, "model": "x", "num_classes": 2, "pixel_scale": 1.0, "note": {},
               "per_image": False, "sparse_shapes": {"a/kernel": [5, 3]}}  # fmt: skip
    entries["digest"] = digest(entries, tensors, version=2)
    path.write_bytes(save(tensors, metadata={FORMAT: json.dumps(entries)}))
    with pytest.raises(UserError, match="is damaged: a/kernel: values"):
        load_network(path)


@pytest.mark.parametrize("kind", ["FIFO", "character device", "socket", "Is a directory"])
def test_special_files_are_refused_before_they_are_read(tmp_path, kind):
    path = tmp_path / "network.safetensors"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(path))
    elif kind == "character device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=f"cannot be read: .*{kind}"):
        load_network(path)
