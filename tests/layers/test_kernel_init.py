"""Initialisers of kernels beside those of linen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax.linen import initializers
from tolerances import close

from adaptive_nets.layers import kernel_init

pytestmark = pytest.mark.core
SHAPE = (3, 5, 6, 7)
PAIRS = {
    "HE_FAN_IN": initializers.he_normal(),
    "HE_FAN_OUT": initializers.variance_scaling(2.0, "fan_out", "normal"),
    "LECUN": initializers.lecun_normal(),
    "GLOROT_NORMAL": initializers.glorot_normal(),
    "GLOROT_UNIFORM": initializers.glorot_uniform(),
}


@pytest.mark.parametrize("name", PAIRS)
def test_values_are_those_of_linen(name, key):
    ours = getattr(kernel_init, name)(key, SHAPE)
    assert ours.shape == SHAPE
    close(ours, PAIRS[name](key, SHAPE))


def test_independent_kernels_do_not_count_for_the_fan(key):
    ours = kernel_init.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0,))
    theirs = initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=(0,))
    close(ours(key, (4, 6, 5)), theirs(key, (4, 6, 5)))


def test_a_normal_of_any_shape(key):
    theirs = initializers.normal(0.3)
    close(kernel_init.normal(0.3)(key, SHAPE), theirs(key, SHAPE))
    assert kernel_init.normal(0.3)(key, (0, 2)).shape == (0, 2)


@pytest.mark.parametrize("init", [kernel_init.LECUN, kernel_init.normal(1.0)])
def test_low_precision_and_no_elements(init, key):
    assert init(key, SHAPE, jnp.bfloat16).dtype == jnp.bfloat16
    assert init(key, (3, 3, 0, 4)).shape == (3, 3, 0, 4)


def test_random_bits_have_one_axis(key):
    """Random bits of four axes take a compiler seconds."""
    program = str(jax.make_jaxpr(lambda key: kernel_init.HE_FAN_OUT(key, SHAPE))(key))
    assert "random_bits[bit_width=32 shape=(630,)]" in program
