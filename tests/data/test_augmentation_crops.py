"""Random crops, flips and black squares against Pillow and NumPy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw

from adaptive_nets.data.augmentations.crops import (
    Regions,
    crop_and_flip,
    cutout,
    cutout_centres,
    random_regions,
    random_resized_crop,
    resized_crop,
)

pytestmark = pytest.mark.core


regions = jax.jit(random_regions, static_argnums=(2, 3))


def noise(rng, count, height, width):
    return rng.integers(1, 256, (count, height, width, 3), dtype=np.uint8)


def test_crops_cover_all_corners_and_half_are_mirrored(key, rng):
    image = noise(rng, 1, 6, 5)[0]
    count = 4000
    images = jnp.asarray(np.repeat(image[None], count, 0), jnp.float32)
    found = np.asarray(jax.jit(crop_and_flip)(key, images)).astype(np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    crops = [padded[y : y + 6, x : x + 5] for y in range(9) for x in range(9)]
    known = {crop.tobytes(): i for i, crop in enumerate(crops)}
    known |= {np.ascontiguousarray(crop[:, ::-1]).tobytes(): 81 + i for i, crop in enumerate(crops)}
    assert len(known) == 162
    kinds = np.bincount([known[crop.tobytes()] for crop in found], minlength=162)
    assert kinds.min() > 0
    assert abs(kinds[81:].sum() / count - 0.5) < 0.04
    assert kinds.max() < 60


def test_a_crop_without_padding_only_flips(key, rng):
    images = jnp.asarray(noise(rng, 20, 4, 5), jnp.float32)
    found = np.asarray(jax.jit(functools.partial(crop_and_flip, padding=0))(key, images))
    same = (found == images).all((1, 2, 3))
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert same.any()
    assert mirrored.any()


@pytest.mark.parametrize("size", [(32, 32), (29, 35)])
def test_a_black_square_is_drawn_as_in_the_papers_code(size, key, rng):
    height, width = size
    images = noise(rng, 64, *size)
    sides = np.linspace(0, 0.75, 64).astype(np.float32)
    floats = jnp.asarray(images, jnp.float32)
    centres = np.asarray(jax.jit(cutout_centres)(key, floats))
    found = np.asarray(jax.jit(cutout)(floats, jnp.asarray(sides), jnp.asarray(centres)))
    for image, side, (y, x), result in zip(images, sides, centres, found, strict=True):
        picture = Image.fromarray(image)
        length = np.float32(side) * width
        if side > 0:
            left, top = int(max(0, x - length / 2)), int(max(0, y - length / 2))
            corners = (left, top, min(width, left + length), min(height, top + length))
            ImageDraw.Draw(picture).rectangle(corners, (0, 0, 0))
        np.testing.assert_array_equal(result, picture)


@pytest.mark.parametrize("size", [(32, 32), (29, 35)])
def test_a_resized_crop_is_that_of_pillow(size, rng):
    height, width = size
    images = noise(rng, 40, *size)
    images[20:] = np.sort(images[20:], axis=2)
    heights, widths = rng.integers(1, height + 1, 40), rng.integers(1, width + 1, 40)
    heights[:2], widths[:2] = height, width
    tops = np.array([rng.integers(0, height - h + 1) for h in heights])
    lefts = np.array([rng.integers(0, width - w + 1) for w in widths])
    chosen = Regions(*(jnp.asarray(side) for side in (tops, lefts, heights, widths)))
    found = np.asarray(jax.jit(resized_crop)(jnp.asarray(images, jnp.float32), chosen))
    expected = [
        Image.fromarray(image[t : t + h, c : c + w]).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for image, t, c, h, w in zip(images, tops, lefts, heights, widths, strict=True)
    ]
    np.testing.assert_array_equal(found[:2], images[:2])
    apart = np.abs(found - np.stack([np.asarray(e) for e in expected]).astype(int))
    # Pillow's weights are fixed-point numbers, and each of the two passes rounds.
    assert apart.max() <= 1
    assert (apart > 0).mean() < 2e-3


def test_regions_have_the_area_and_the_aspect_ratio_asked_for(key):
    area = jnp.repeat(jnp.float32([0.08, 0.4, 0.7]), 400)
    top, left, height, width = map(np.asarray, regions(key, area, 96, 96))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 96).all()
    assert (left + width <= 96).all()
    found = height * width / 96**2
    assert ((found > area - 0.02) & (found < area + 0.03)).all()
    ratio = width / height
    assert ratio.min() > 0.7
    assert ratio.max() < 1.4
    assert len(np.unique(top)) > 50
    assert len(np.unique(left)) > 50


def test_a_region_that_does_not_fit_is_the_largest_central_one(key):
    area = jnp.full(5, 1.2)
    square = regions(key, area, 30, 30)
    np.testing.assert_array_equal(np.stack(square)[:, 0], [0, 0, 30, 30])
    wide = regions(key, area, 30, 90)
    np.testing.assert_array_equal(np.stack(wide)[:, 0], [0, 25, 30, 40])
    tall = regions(key, area, 90, 30)
    np.testing.assert_array_equal(np.stack(tall)[:, 0], [25, 0, 40, 30])


def test_a_crop_of_no_area_keeps_one_pixel(key, rng):
    images = jnp.asarray(noise(rng, 8, 6, 6), jnp.float32)
    found = np.asarray(jax.jit(random_resized_crop)(key, images, jnp.full(8, -0.001)))
    assert (found == found[:, :1, :1]).all()
