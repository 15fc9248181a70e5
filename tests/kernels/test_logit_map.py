"""The convolution with one output near active positions, against the float64 one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import convolution
from tolerances import close

from kernels.masked_unit import logit_map


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("size", [(7, 6), (23, 25)])
def test_it_is_the_convolution_where_the_mask_is_true(window, size, rng):
    x = jnp.asarray(rng.standard_normal((2, *size, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((*window, 4)), jnp.float32)
    run = jax.jit(lambda mask: logit_map(x, w, mask))
    expected = convolution(
        np.asarray(x, np.float64), w[..., None], strides=(1, 1), padding="SAME", groups=1
    )[..., 0]
    random = rng.random((2, *size)) < 0.3
    for mask in (random, np.zeros_like(random), np.ones_like(random)):
        found = np.asarray(run(jnp.asarray(mask)))
        assert found.dtype == np.float32
        close(found[mask], expected[mask], terms=60)


def test_a_normalisation_pads_with_zeros_and_folds_into_the_weights(rng):
    x = jnp.asarray(rng.standard_normal((2, 7, 6, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 4)), jnp.float32)
    scale, shift = jnp.asarray(rng.random(4) + 0.5), jnp.asarray(rng.standard_normal(4))
    mask = jnp.asarray(rng.random((2, 7, 6)) < 0.5)
    before = logit_map(x, w, mask, before=lambda rows: rows * scale[None] + shift[None])
    folded = logit_map(x, w * scale[None, None], mask, tap_biases=w @ shift)
    normalised = np.asarray(x, np.float64) * np.asarray(scale) + np.asarray(shift)
    expected = convolution(normalised, w[..., None], strides=(1, 1), padding="SAME", groups=1)[
        ..., 0
    ]
    for found in (before, folded):
        close(np.asarray(found)[mask], expected[np.asarray(mask)], terms=100)
