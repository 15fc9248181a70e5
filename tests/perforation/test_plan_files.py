"""Files of plans: they come back as they are, and damage is named in one line."""

from __future__ import annotations

import json
import os
import struct

import jax
import numpy as np
import pytest
from safetensors.numpy import load, save

from adaptive_nets.models.weights.header import digest
from adaptive_nets.perforation.plan import PerforationPlan, layer_mask
from adaptive_nets.perforation.plan_files import FORMAT, load_plan, load_plan_variables, save_plan
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.fixture
def file(tmp_path):
    mask = np.array([[True, False, True], [False, True, False]])
    plan = PerforationPlan("f" * 16, {"conv1": layer_mask(jax.random.key(0), mask)}, "lenet")
    path = tmp_path / "plan.safetensors"
    save_plan(path, plan, variables={"params": {"a": np.arange(3, dtype=np.float32)}})
    return path


def message_of(file):
    """The error of a file; empty if it is accepted."""
    try:
        load_plan(file)
    except UserError as error:
        return str(error)
    return ""


def test_every_flipped_bit_is_noticed_or_harmless(file):
    whole, plan = file.read_bytes(), load_plan(file)
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        file.write_bytes(bytes(content))
        message = message_of(file)
        assert "\n" not in message
        if message:
            assert str(file) in message
        else:
            assert (load_plan(file), load_plan(file).model) == (plan, "lenet")
            np.testing.assert_array_equal(load_plan_variables(file)["params"]["a"], np.arange(3))


def test_every_truncation_is_noticed(file):
    whole = file.read_bytes()
    for length in range(0, len(whole), 5):
        file.write_bytes(whole[:length])
        assert str(file) in message_of(file)


def rewrite(path, entries, tensors=None):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][FORMAT])
    kept = {name: entry for name, entry in (header | entries).items() if entry is not ...}
    kept.pop("contents")
    found = load(content) | (tensors or {})
    if kept.get("version") == 2:
        kept["contents"] = digest(found, kept)
    path.write_bytes(save(found, metadata={FORMAT: json.dumps(kept)}))


@pytest.mark.parametrize("version", [1, 2])
def test_plans_of_both_versions_are_read(file, version):
    plan = load_plan(file)
    rewrite(file, {"version": version})
    assert load_plan(file) == plan


def test_variables_that_are_not_finite_are_named(file):
    rewrite(file, {}, {"params/a": np.array([0, np.nan], np.float32)})
    assert r"params/a has nan at [1]" in message_of(file)


@pytest.mark.parametrize("entry", ["version", "model", "fingerprint", "digest", "kinds"])
@pytest.mark.parametrize("value", [..., None, 3, "x", [], {}, {"other": "grid"}, {"conv1": 3}])
def test_every_entry_of_the_header_is_checked(file, entry, value):
    rewrite(file, {entry: value})
    message = message_of(file)
    assert "\n" not in message
    assert message or (entry, value) == ("model", "x")


@pytest.mark.parametrize(
    "tensors",
    [
        {"mask:conv1": np.zeros((2, 3), np.float32)},
        {"mask:conv1": np.zeros((0, 3), bool)},
        {"mask:conv1": np.ones((3, 3), bool)},
        {"nearest:conv1": np.full((2, 3), 10**6, np.int32)},
        {"nearest:conv1": np.full((2, 3), -1, np.int32)},
        {"nearest:conv1": np.zeros((2, 3), np.float32)},
    ],
)
def test_masks_are_checked(file, tensors):
    rewrite(file, {}, tensors)
    assert "is damaged" in message_of(file)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": NaN}', '{"a":' * 9000])
def test_a_header_that_is_no_object(file, text):
    file.write_bytes(save(load(file.read_bytes()), metadata={FORMAT: text}))
    assert len(message_of(file)) > 20


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "plan"
    os.mkfifo(path)
    for read in (load_plan, load_plan_variables):
        with pytest.raises(UserError, match="it is a FIFO"):
            read(path)
