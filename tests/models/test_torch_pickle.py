"""PyTorch's files: both forms, every dtype, and nothing in them runs."""

from __future__ import annotations

import argparse
import collections
import datetime
import fractions
import functools
import inspect
import io
import os
import pathlib
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files
from torch_files import Tensor, archive, evil, sequence

from adaptive_nets.models.weights.torch_pickle import read_torch
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.models.weights.wrappers import find_state_dict
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
FORMS = {"archive": archive, "sequence": sequence}
BASE = np.arange(6, dtype=np.float32)


def read(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read_torch(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16, "int64", "uint8", "bool"]
)
def test_arrays_come_back_with_their_dtypes(tmp_path, form, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    found = read(tmp_path, FORMS[form]({"state_dict": torch_files.state_dict({"a.b": array})}))
    assert found["state_dict"]["a.b"].dtype == array.dtype
    np.testing.assert_array_equal(found["state_dict"]["a.b"], array)


@pytest.mark.parametrize("form", FORMS)
def test_views_share_a_storage(tmp_path, form):
    base = np.arange(12, dtype=np.float32)
    tensors = {
        "whole": Tensor(base),
        "part": Tensor(base, offset=2, size=(2, 3), stride=(4, 1)),
        "turned": Tensor(base, size=(4, 3), stride=(1, 4)),
        "scalar": Tensor(base, offset=7, size=(), stride=()),
        "empty": Tensor(base, size=(0, 5), stride=(5, 1)),
        "parameter": Tensor(base, parameter=True),
    }
    found = read(tmp_path, FORMS[form](tensors))
    np.testing.assert_array_equal(found["whole"], base)
    np.testing.assert_array_equal(found["part"], [[2, 3, 4], [6, 7, 8]])
    np.testing.assert_array_equal(found["turned"], base.reshape(3, 4).T)
    np.testing.assert_array_equal(found["parameter"], base)
    assert found["scalar"] == 7
    assert found["empty"].shape == (0, 5)


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_beside_the_tensors_is_kept(tmp_path, form):
    momentum = Tensor(np.ones(3, np.float32))
    value = {
        "epoch": 3,
        "best_prec1": 91.7,
        "arch": "resnet20",
        "optimizer": {"state": {0: {"momentum_buffer": momentum}}, "param_groups": [{"lr": 0.1}]},
        "flags": (True, None),
    }
    found = read(tmp_path, FORMS[form](value))
    np.testing.assert_array_equal(found["optimizer"]["state"][0].pop("momentum_buffer"), np.ones(3))
    assert found == value | {
        "flags": [True, None],
        "optimizer": {"state": {0: {}}, "param_groups": [{"lr": 0.1}]},
    }


def test_the_other_byte_order(tmp_path):
    array = np.arange(5, dtype=np.float32)
    found = read(tmp_path, archive({"a": Tensor(array)}, order="big"))
    np.testing.assert_array_equal(found["a"], array)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("os", "system", ("touch {}",)),
        ("builtins", "eval", ("open('{}', 'w')",)),
        ("builtins", "exec", ("open('{}', 'w')",)),
        ("builtins", "getattr", ("a", "b")),
        ("builtins", "__import__", ("this",)),
        ("subprocess", "check_output", (["touch", "{}"],)),
        ("pathlib", "Path", ("{}",)),
    ],
)
def test_nothing_in_a_malicious_file_runs(tmp_path, form, module, name, arguments):
    target = tmp_path / "touched"
    filled = tuple(
        [part.format(target) for part in a] if isinstance(a, list) else a.format(target)
        for a in arguments
    )
    content = FORMS[form]({"a": Tensor(np.ones(2, np.float32)), "b": evil(module, name, *filled)})
    before = set(sys.modules)
    found = read(tmp_path, content)
    np.testing.assert_array_equal(found["a"], np.ones(2))
    assert isinstance(found["b"], Unreadable)
    assert found["b"].what.endswith(f".{name}")
    assert not target.exists()
    assert "this" not in set(sys.modules) - before


@pytest.mark.parametrize("form", FORMS)
def test_objects_beside_the_tensors_are_inert(tmp_path, form):
    """Each is read back as a description, and the tensors beside it as they are."""
    beside = {
        "args": argparse.Namespace(lr=0.1, deep=argparse.Namespace(x=1)),
        "counter": collections.Counter("abba"),
        "default": collections.defaultdict(list, a=[1]),
        "scalar": np.float64(91.7),
        "array": np.arange(3),
        "dtype": np.dtype("f4"),
        "path": pathlib.PurePosixPath("a/b"),
        "date": datetime.datetime(2020, 1, 2),
        "enum": inspect.Parameter.POSITIONAL_ONLY,
        "partial": functools.partial(max, 1),
        "set": {1, 2},
        "number": complex(1, 2),
        "bytes": b"ab",
        "fraction": fractions.Fraction(1, 3),
        "deque": collections.deque([1, 2]),
        "function": max,
        "class": dict,
    }
    w = np.arange(6, dtype=np.float32)
    found = read(tmp_path, FORMS[form]({**beside, "state_dict": {"a.w": Tensor(w)}}))
    np.testing.assert_array_equal(found["state_dict"]["a.w"], w)
    assert found["args"].what == "an object of the class argparse.Namespace"
    for name in ("scalar", "array", "date", "partial", "deque", "fraction", "class"):
        assert isinstance(found[name], Unreadable), name


def test_a_subclass_of_a_dict_is_read_as_a_mapping(tmp_path):
    content = archive({"state_dict": Subclass({"a.w": Tensor(BASE)})})
    np.testing.assert_array_equal(read(tmp_path, content)["state_dict"]["a.w"], BASE)


class Subclass(collections.OrderedDict):
    """A container of a training script."""


def test_a_whole_model_is_named_by_its_class(tmp_path):
    model = torch_files._Named("torchvision.models.resnet", "ResNet")
    tree = read(tmp_path, archive({"model": model, "epoch": 3}))
    with pytest.raises(
        UserError, match=r"'model' is the object torchvision\.models\.resnet\.ResNet"
    ):
        find_state_dict(tree, source="file")


@pytest.mark.parametrize("name", ["FloatStorage", "float32"])
@pytest.mark.parametrize(
    "state", [{"dtype": 3}, (None, {"dtype": 3}), ({"dtype": 3}, {"dtype": 3})]
)
def test_a_pickle_cannot_change_the_reader(tmp_path, name, state):
    """A file read later in the same process gives the same tensors."""
    tampering = b"\x80\x02ctorch\n" + name.encode() + b"\n" + pickle.dumps(state, 2)[2:-1] + b"b."
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as file:
        file.writestr("net/data.pkl", tampering)
    read_torch(tmp_path / "weights.pth")
    np.testing.assert_array_equal(read(tmp_path, archive({"a": Tensor(BASE)}))["a"], BASE)


def test_a_pickle_cannot_move_a_tensor_beyond_its_storage(tmp_path):
    content = archive({"a": Tensor(BASE)})
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    # After the call that makes the tensor, its state is set.
    state = pickle.dumps({"size": (10**6,), "stride": (10**6,), "offset": 10**9}, 2)[2:-1]
    at = members["net/data.pkl"].rindex(pickle.REDUCE) + 1
    members["net/data.pkl"] = (
        members["net/data.pkl"][:at] + state + pickle.BUILD + members["net/data.pkl"][at:]
    )
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    np.testing.assert_array_equal(read_torch(tmp_path / "weights.pth")["a"], BASE)


def test_a_pickle_takes_no_memory_that_it_does_not_have(tmp_path):
    """A number under which a value is stored makes an unpickler reserve that many places."""
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as file:
        file.writestr("net/data.pkl", b"\x80\x02]r\xff\xff\xff\x7f.")
    with pytest.raises(UserError, match="stores value number 2147483647 after"):
        read_torch(tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_file_without_end_is_refused_before_it_is_read(tmp_path, kind):
    path = tmp_path / "weights.pth"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="expected a regular file"):
        read_torch(path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(BASE, size=(7,), stride=(1,)),
        Tensor(BASE, offset=1, size=(6,), stride=(1,)),
        Tensor(BASE, size=(2, 3), stride=(4, 1)),
        Tensor(BASE, size=(10**6, 10**6), stride=(0, 0)),
        Tensor(BASE, size=(2,), stride=(-1,)),
        Tensor(BASE, offset=-1, size=(2,), stride=(1,)),
        Tensor(BASE, size=(2, 3), stride=(1,)),
        Tensor(BASE, size=("2",), stride=(1,)),
    ],
)
def test_a_tensor_stays_within_its_storage(tmp_path, form, tensor):
    with pytest.raises(UserError, match="refused: a tensor"):
        read(tmp_path, FORMS[form]({"a": tensor}))


GOOD = {"state_dict": torch_files.state_dict({"w": np.arange(300, dtype=np.float32)})}


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_one_line(tmp_path, form):
    content = FORMS[form](GOOD)
    for length in (*range(0, 60, 7), *range(60, len(content) - 1, 41), len(content) - 1):
        with pytest.raises(UserError, match=r"weights\.pth") as error:
            read(tmp_path, content[:length])
        assert "\n" not in str(error.value)


def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path):
    content = bytearray(archive(GOOD))
    place = content.index(np.arange(300, dtype=np.float32).tobytes()) + 100
    content[place] ^= 1
    with pytest.raises(UserError, match="is damaged"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(GOOD, compression=zipfile.ZIP_DEFLATED), "members are compressed"),
        (archive(GOOD, drop=(0,)), "storage '0' is missing"),
        (archive(GOOD, order="middle"), "byte order is 'middle'"),
        (pickle.dumps({"a": 1}, 2), "does not begin as PyTorch's files do"),
        (pickle.dumps(torch_files.MAGIC, 2) + pickle.dumps(7, 2), "its version is 7"),
        (b"PK\x03\x04 and nothing more", "is damaged"),
    ],
)
def test_other_damage_is_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)


def test_nested_sharing_takes_no_time(tmp_path):
    """Ten lists of ten, thirty deep, would be 10^30 if each were read on its own."""
    value: list = [Tensor(BASE)]
    for _ in range(30):
        value = [value] * 10
    assert len(read(tmp_path, archive({"a": value}))["a"]) == 10


def test_pytorchs_own_files(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    for new in (True, False):
        path = tmp_path / "t.pt"
        torch.save(tensors, path, _use_new_zipfile_serialization=new)
        found = read_torch(path)
        np.testing.assert_array_equal(found["a"], tensors["a"].numpy())
        assert found["b"].astype(np.float32).tolist() == [1, 1, 1]
