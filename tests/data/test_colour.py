"""Colour distortion against the standard library's HSV and loops over images."""

from __future__ import annotations

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.data import colour
from adaptive_nets.data.colour import apply_in_order, distort_colours
from adaptive_nets.data.device import Augmentation, DeviceSplit, finish_rows, normalise

pytestmark = pytest.mark.core


@pytest.fixture
def images(rng):
    """Photographs, greys, black, white and primary colours."""
    photos = rng.uniform(0, 1, (2, 3, 5, 3))
    corners = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    special = np.concatenate([corners, np.full((4, 3), 0.3), rng.uniform(0, 1, (3, 3))])
    return np.concatenate([photos, special.reshape(1, 3, 5, 3)]).astype(np.float32)


def in_hsv(images, change):
    """Applies (image number, h, s, v) -> (h, s, v) to each pixel by colorsys."""
    result = np.zeros(images.shape)
    for n, row, column in np.ndindex(images.shape[:3]):
        hsv = colorsys.rgb_to_hsv(*map(float, np.clip(images[n, row, column], 0, 1)))
        result[n, row, column] = colorsys.hsv_to_rgb(*change(n, *hsv))
    return result


def test_saturation_and_hue_are_those_of_hsv(images):
    factors, turns = np.array([0.5, 1.4, 1.5]), np.array([-0.2, 0.15, 0.2])
    adjust_hue = jax.jit(colour.adjust_hue)
    close(
        jax.jit(colour.adjust_saturation)(jnp.asarray(images), jnp.asarray(factors)),
        in_hsv(images, lambda n, h, s, v: (h, min(s * factors[n], 1.0), v)),
        terms=20,
    )
    close(
        adjust_hue(jnp.asarray(images), jnp.asarray(turns)),
        in_hsv(images, lambda n, h, s, v: ((h + turns[n]) % 1.0, s, v)),
        terms=60,
    )
    close(adjust_hue(jnp.asarray(images), jnp.ones(3)), images, terms=60)


def oracle(images, amounts, order):
    """One image after the other, operation by operation."""
    brightness, saturation, hue, contrast = np.asarray(amounts, np.float64)
    orders = ("bshc", "sbch", "chbs", "hscb")
    result = []
    for n, image in enumerate(images.astype(np.float64)):
        x = image[None]
        for name in orders[order[n]]:
            if name == "b":
                x = x + brightness[n]
            elif name == "c":
                mean = x.mean((1, 2), keepdims=True)
                x = (x - mean) * contrast[n] + mean
            elif name == "s":
                x = in_hsv(x, lambda _, h, s, v, n=n: (h, min(s * saturation[n], 1.0), v))
            else:
                x = in_hsv(x, lambda _, h, s, v, n=n: ((h + hue[n]) % 1.0, s, v))
        result.append(np.clip(x[0], 0, 1))
    return np.stack(result)


@pytest.mark.parametrize("order", [(0, 1, 2), (3, 3, 0)])
def test_an_image_undergoes_the_operations_in_its_order(images, order):
    amounts = [[0.1, -0.12, 0.05], [0.6, 1.3, 1.5], [-0.2, 0.1, 0.17], [1.4, 0.5, 0.8]]
    arrays = [jnp.asarray(a) for a in amounts]
    found = jax.jit(apply_in_order)(jnp.asarray(images), arrays, jnp.asarray(order))
    np.testing.assert_allclose(found, oracle(images, amounts, order), atol=2e-5)


def test_draws_depend_on_the_key_and_differ_between_images(images):
    same = jnp.asarray(np.repeat(images[:1], 64, axis=0))
    distort = jax.jit(distort_colours)
    found = np.asarray(distort(jax.random.key(3), same))
    np.testing.assert_array_equal(found, distort(jax.random.key(3), same))
    assert len(np.unique(found.reshape(64, -1), axis=0)) == 64
    assert found.min() >= 0
    assert found.max() <= 1
    assert not np.allclose(found, distort(jax.random.key(4), same))
    assert distort(jax.random.key(0), jnp.zeros((0, 3, 5, 3))).shape == (0, 3, 5, 3)


def test_training_rows_are_distorted_before_they_are_normalised(images):
    pixels = jnp.asarray(np.round(255 * images), jnp.uint8)
    offset, scale = jnp.full((1, 1, 3), 1.0), jnp.ones((1, 1, 3))
    data = DeviceSplit({"image": pixels}, offset, scale, jnp.float32(127.5))
    finish = jax.jit(finish_rows, static_argnames="augmentation")
    key = jax.random.key(5)
    rows = finish(data, data.arrays, key=key, augmentation=Augmentation(colour_distortion=True))
    assert float(rows["image"].min()) >= -1
    assert float(rows["image"].max()) <= 1
    plain = finish(data, data.arrays, key=key, augmentation=Augmentation())
    np.testing.assert_array_equal(plain["image"], jax.jit(normalise)(data, pixels))
    assert not np.allclose(rows["image"], plain["image"], atol=0.05)
    # Crops and flips draw the same numbers with and without it.
    crops = [
        finish(data, data.arrays, key=key, augmentation=Augmentation(1, True, distorted))
        for distorted in (False, True)
    ]
    padding = [np.asarray(rows["image"] == 0).all(-1) for rows in crops]
    np.testing.assert_array_equal(padding[0], padding[1])
