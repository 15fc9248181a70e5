"""Networks in files: they come back exactly, damage is named, no code runs."""

from __future__ import annotations

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

import adaptive_nets as an
from adaptive_nets.models.weights import stored as weights
from adaptive_nets.models.weights.stored import (
    InputNormalisation,
    check_fits,
    load_network,
    save_network,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
NORMALISATION = InputNormalisation(
    255.0, np.full((28, 28, 1), 0.13, np.float32), np.ones((1, 1, 1), np.float32)
)


@pytest.fixture(scope="module")
def variables():
    model = an.create_model("lenet_300_100")
    made = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    mask = jax.random.uniform(jax.random.key(1), (784, 300)) < 0.01
    made["params"]["fc1"]["kernel"] *= mask
    return jax.device_get(made)


def saved(path, variables, **options):
    return save_network(
        path,
        model="lenet_300_100",
        num_classes=10,
        variables=variables,
        normalisation=NORMALISATION,
        **options,
    )


def test_scalars_stay_scalars(tmp_path):
    params = {"head": {"bias": np.float32(0.5), "kernel": np.ones((2, 3), np.float32).T}}
    save_network(
        tmp_path / "net.safetensors",
        model="lenet_300_100",
        num_classes=10,
        variables={"params": params},
        normalisation=NORMALISATION,
    )
    found = load_network(tmp_path / "net.safetensors").variables["params"]["head"]
    assert found["bias"].shape == ()
    np.testing.assert_array_equal(found["kernel"], params["head"]["kernel"])


@pytest.mark.parametrize("sparse", [False, True])
def test_comes_back_exactly(tmp_path, variables, sparse):
    path = tmp_path / "network.safetensors"
    size = saved(path, variables, sparse=sparse, note={"seed": 3})
    assert size == path.stat().st_size
    stored = load_network(path)
    assert (stored.model, stored.num_classes, stored.note) == ("lenet_300_100", 10, {"seed": 3})
    jax.tree.map(np.testing.assert_array_equal, stored.variables, variables)
    np.testing.assert_array_equal(stored.normalisation.offset, NORMALISATION.offset)
    assert stored.normalisation.pixel_scale == 255.0
    kernels = [layer["kernel"] for layer in variables["params"].values()]
    counted = sum(np.count_nonzero(k) if sparse else k.size for k in kernels)
    assert stored.stored_weights == counted


def test_a_sparse_file_is_small(tmp_path, variables):
    dense = saved(tmp_path / "dense", variables)
    sparse = saved(tmp_path / "sparse", variables, sparse=True)
    left = sum(np.count_nonzero(layer["kernel"]) for layer in variables["params"].values())
    # Four bytes a value, at most two a gap, biases, the mean image and the header.
    assert sparse < 6 * left + 4 * (410 + 784) + 3000
    assert dense > 4 * 266_610


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(0, 10**6),
)
def test_values_and_gaps_are_the_kernel(shape, share, seed):
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=shape) * (rng.random(shape) < share)).astype(np.float32)
    values, gaps = weights._encode_sparse(kernel)
    np.testing.assert_array_equal(weights._decode_sparse(values, gaps, tuple(shape)), kernel)


@pytest.mark.parametrize(
    ("distance", "dtype"), [(255, np.uint8), (300, np.uint16), (70_000, np.uint32)]
)
def test_gaps_take_the_smallest_type(distance, dtype):
    kernel = np.zeros(distance + 2, np.float32)
    kernel[[0, distance + 1]] = 1
    values, gaps = weights._encode_sparse(kernel)
    assert gaps.dtype == dtype
    np.testing.assert_array_equal(weights._decode_sparse(values, gaps, kernel.shape), kernel)


def test_nothing_is_left(tmp_path, variables):
    empty = jax.tree.map(np.zeros_like, variables)
    saved(tmp_path / "empty", empty, sparse=True)
    stored = load_network(tmp_path / "empty")
    assert stored.stored_weights == 0
    jax.tree.map(np.testing.assert_array_equal, stored.variables, empty)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def other_format(path):
    path.write_bytes(save({"a": np.zeros(3, np.float32)}))


def other_version(path):
    tensors = load(path.read_bytes())
    header = json.dumps({"version": 99})
    path.write_bytes(save(tensors, metadata={weights.FORMAT: header}))


BAD_FILES = {
    "absent": (lambda p: p.unlink(), "does not exist"),
    "flipped bit": (flip, "is damaged"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "cannot be read as safetensors"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read as safetensors"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "cannot be read as safetensors"),
    "other safetensors": (other_format, "was not written by adaptive_nets"),
    "other version": (other_version, "has version 99; expected 1"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path, variables, bad):
    path = tmp_path / "network.safetensors"
    saved(path, variables)
    damage, message = BAD_FILES[bad]
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        load_network(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_tensor_that_does_not_fit_is_named(variables):
    expected = jax.tree.map(lambda x: x, variables)
    check_fits(variables, expected, source="file")
    expected["params"]["fc2"]["kernel"] = np.zeros((300, 99))
    with pytest.raises(UserError, match=r"file does not fit .* params/fc2/kernel is \(300, 100\)"):
        check_fits(variables, expected, source="file")
    del expected["params"]["fc2"]
    with pytest.raises(UserError, match=r"params/fc2/bias .* expected nothing of this name"):
        check_fits(variables, expected, source="file")
    with pytest.raises(UserError, match="params/fc1/bias is absent in the file"):
        check_fits({}, variables, source="file")


def test_heads_of_another_rule_are_refused_for_what_they_mean():
    heads = {rule: {"params": {f"block1_unit1_{rule}_head": {}}} for rule in ("act", "pact")}
    check_fits(heads["act"], heads["act"], source="file")
    with pytest.raises(
        UserError, match="file has halting heads of 'act'; expected those of 'pact'"
    ):
        check_fits(heads["act"], heads["pact"], source="file")


def test_a_failed_write_leaves_the_old_file(tmp_path, variables, monkeypatch):
    path = tmp_path / "network.safetensors"
    saved(path, variables)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        saved(path, variables, sparse=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
