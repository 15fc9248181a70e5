"""The checksum sees every change and no sharding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from adaptive_nets.training.checksum import checksums
from adaptive_nets.training.config import MeshConfig
from adaptive_nets.training.mesh import make_mesh

pytestmark = pytest.mark.core
DTYPES = ["float32", "bfloat16", "float16", "int32", "uint8", "uint32", "bool"]


def checksum(array) -> str:
    return checksums({"x": jnp.asarray(array)})["x"]


def reference(array: np.ndarray) -> str:
    """The definition, in Python integers."""
    width = array.dtype.itemsize
    words = [int.from_bytes(array.ravel()[i].tobytes(), "little") for i in range(array.size)]
    assert width <= 4
    digits = ""
    for multiplier in (0x9E3779B1, 0x85EBCA77):
        total = 0
        for i, word in enumerate(words):
            weight = i * multiplier % 2**32
            weight = ((weight ^ (weight >> 15)) * multiplier % 2**32) | 1
            total = (total + word * weight) % 2**32
        digits += f"{total:08x}"
    return digits


@pytest.mark.parametrize("dtype", DTYPES)
def test_is_its_definition(dtype, rng):
    array = np.asarray(jnp.asarray(rng.integers(0, 2, (3, 5)) * 3.7).astype(dtype))
    assert checksum(array) == reference(array)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(0, 31))
def test_one_flipped_bit_shows(position, bit):
    array = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    damaged = array.copy()
    damaged.view(np.uint32)[position] ^= np.uint32(1 << bit)
    assert checksum(array) != checksum(damaged)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(0, 999))
def test_exchanged_elements_show(first, second):
    array = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    damaged = array.copy()
    damaged[[first, second]] = damaged[[second, first]]
    assert (checksum(array) == checksum(damaged)) == (first == second)


def test_minus_zero_and_zero_differ():
    assert checksum(np.zeros(3, np.float32)) != checksum(-np.zeros(3, np.float32))


@pytest.mark.parametrize("spec", [P(), P("data"), P(None, "model"), P("data", "model")])
def test_does_not_depend_on_the_sharding(spec, rng):
    mesh = make_mesh(MeshConfig(model=2))
    array = rng.normal(size=(8, 6)).astype(np.float32)
    sharded = jax.device_put(array, jax.sharding.NamedSharding(mesh, spec))
    assert checksums({"x": sharded})["x"] == reference(array)


def test_float64():
    with jax.enable_x64(True):
        array = np.array([1.0, 2.0])
        damaged = np.nextafter(array, 3.0)
        assert checksum(array) != checksum(damaged)
