"""A residual unit at active positions against the same unit written densely in NumPy."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import convolution
from scipy.ndimage import binary_dilation
from tolerances import close

from kernels.masked_unit.unit import BlockState, dilate, masked_unit, masked_unit_with_sums

pytestmark = pytest.mark.core
UNITS = {
    "bottleneck": ((1, 1), (3, 3), (1, 1)),
    "basic": ((3, 3), (3, 3)),
    "uneven": ((5, 3), (1, 1), (1, 3)),
    "single": ((3, 3),),
}


def dense(x, mask, kernels, biases, scale, shift):
    y = np.asarray(x, np.float64)
    if scale is not None:
        y = np.maximum(y * np.asarray(scale) + np.asarray(shift), 0)
    for i, (w, bias) in enumerate(zip(kernels, biases, strict=True)):
        y = convolution(y, w, strides=(1, 1), padding="SAME", groups=1) + np.asarray(bias)
        if i < len(kernels) - 1:
            y = np.maximum(y, 0)
    return np.asarray(x, np.float64) + y * mask[..., None]


@pytest.mark.parametrize("windows", UNITS.values(), ids=UNITS.keys())
@pytest.mark.parametrize("normalised", [False, True])
def test_it_is_the_dense_unit_at_active_positions(windows, normalised, rng):
    x = jnp.asarray(rng.standard_normal((2, 7, 6, 4)), jnp.float32)
    widths = [4, *[5, 6][: len(windows) - 1], 4]
    kernels = [
        jnp.asarray(rng.standard_normal((*window, i, o)) / 3, jnp.float32)
        for window, i, o in zip(windows, widths, widths[1:], strict=False)
    ]
    biases = [jnp.asarray(rng.standard_normal(w.shape[3]), jnp.float32) for w in kernels]
    # A shift that ReLU lets through: padding must be zero all the same.
    scale, shift = (jnp.full(4, 0.5), jnp.arange(1.0, 5.0)) if normalised else (None, None)
    run = {
        way: jax.jit(
            lambda mask, way=way: masked_unit(
                x, mask, kernels, biases, scale=scale, shift=shift, way=way
            )
        )
        for way in ("sparse", "dense", None)
    }
    random = rng.random((2, 7, 6)) < 0.3
    for mask in (random, np.zeros_like(random), np.ones_like(random)):
        expected = dense(x, mask, kernels, biases, scale, shift)
        for way in run.values():
            y = np.asarray(way(jnp.asarray(mask)))
            close(y, expected, terms=500)
            assert np.array_equal(y[~mask], np.asarray(x)[~mask])


@pytest.mark.parametrize("windows", UNITS.values(), ids=UNITS.keys())
@pytest.mark.parametrize("way", ["sparse", "dense"])
def test_totals_and_sums_are_kept_up_over_several_pieces(windows, way, rng):
    """1,150 positions are more than a piece, and the pieces do not end with the images."""
    x = jnp.asarray(rng.standard_normal((2, 23, 25, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((*w, 4, 4)) / 3, jnp.float32) for w in windows]
    share = jnp.asarray(rng.random((2, 23, 25)), jnp.float32)
    mask = rng.random((2, 23, 25)) < 0.8
    start = BlockState(x, 2 * x, jnp.sum(x, axis=(1, 2)))
    run = jax.jit(lambda s, m: masked_unit_with_sums(s, m, kernels, share=share, way=way))
    found = run(start, jnp.asarray(mask))
    biases = [np.zeros(4)] * len(kernels)
    residual = dense(x, mask, kernels, biases, None, None) - np.asarray(x, np.float64)
    close(found.x, np.asarray(x) + residual, terms=500)
    close(found.total, 2 * np.asarray(x) + np.asarray(share)[..., None] * residual, terms=500)
    close(found.sums, (np.asarray(x) + residual).sum((1, 2)), terms=50_000)


@pytest.mark.parametrize("windows", UNITS.values(), ids=UNITS.keys())
def test_no_images_are_no_work(windows):
    kernels = [jnp.ones((*w, 4, 4)) for w in windows]
    y = masked_unit(jnp.ones((0, 5, 6, 4)), jnp.ones((0, 5, 6), bool), kernels, way="dense")
    assert y.shape == (0, 5, 6, 4)


def test_the_dense_way_has_gradients(rng):
    x = jnp.asarray(rng.standard_normal((2, 23, 25, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((*w, 4, 4)) / 3) for w in UNITS["bottleneck"]]
    mask = jnp.asarray(rng.random((2, 23, 25)) < 0.5)

    def loss(x, kernels):
        return jnp.sum(masked_unit(x, mask, kernels, way="dense") ** 2)

    def plain(x, kernels):
        y = x
        for i, w in enumerate(kernels):
            y = jax.lax.conv_general_dilated(
                y, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            y = y if i == len(kernels) - 1 else jax.nn.relu(y)
        return jnp.sum((x + mask[..., None] * y) ** 2)

    chex.assert_trees_all_close(
        jax.grad(loss, (0, 1))(x, kernels),
        jax.grad(plain, (0, 1))(x, kernels),
        rtol=2e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (5, 1), (3, 7)])
def test_dilation(window, rng):
    mask = rng.random((2, 9, 8)) < 0.1
    expected = np.stack([binary_dilation(m, np.ones(window)) for m in mask])
    assert np.array_equal(dilate(jnp.asarray(mask), window), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": jnp.ones((1, 4, 3), bool)}, r"expected bool\[1, 4, 4\]"),
        ({"kernels": [jnp.ones((2, 3, 4, 4))]}, r"kernels\[0\] has shape"),
        ({"kernels": [jnp.ones((3, 3, 4, 5))]}, "the last kernel has 5 outputs"),
        ({"biases": []}, "0 biases for 1 kernels"),
    ],
)
def test_a_mistake_is_named(change, message):
    arguments = {
        "x": jnp.ones((1, 4, 4, 4)),
        "mask": jnp.ones((1, 4, 4), bool),
        "kernels": [jnp.ones((3, 3, 4, 4))],
        **change,
    }
    with pytest.raises(ValueError, match=message):
        masked_unit(**arguments)
