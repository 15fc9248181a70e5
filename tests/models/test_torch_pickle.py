"""PyTorch's files: both forms, every dtype, and nothing in them runs."""

from __future__ import annotations

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files
from torch_files import Tensor, archive, evil, sequence

from adaptive_nets.models.weights.torch_pickle import read_torch
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
FORMS = {"archive": archive, "sequence": sequence}


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
        ("builtins", "getattr", ("a", "b")),
        ("subprocess", "check_output", (["touch", "{}"],)),
    ],
)
def test_a_malicious_file_is_refused_and_nothing_runs(tmp_path, form, module, name, arguments):
    target = tmp_path / "touched"
    filled = tuple(
        [part.format(target) for part in a] if isinstance(a, list) else a.format(target)
        for a in arguments
    )
    content = FORMS[form]({"a": Tensor(np.ones(2, np.float32)), "b": evil(module, name, *filled)})
    with pytest.raises(UserError, match=rf"refused: it asks for \w+\.{name}") as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)
    assert not target.exists()


def test_a_whole_model_is_refused_by_its_class(tmp_path):
    content = archive({"model": torch_files._Named("torchvision.models.resnet", "ResNet")})
    with pytest.raises(UserError, match=r"asks for torchvision\.models\.resnet\.ResNet"):
        read(tmp_path, content)


BASE = np.arange(6, dtype=np.float32)


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
