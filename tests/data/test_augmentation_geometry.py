"""Shear, translation and rotation against Pillow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from adaptive_nets.data.augmentations import OPERATIONS, operation_index, operation_value
from adaptive_nets.data.augmentations.geometry import (
    affine,
    rotate,
    rotation_matrices,
    shear_matrices,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    translation_matrices,
)

pytestmark = pytest.mark.core

MAGNITUDES = (0.0, 0.4, 3.0, 11.7, 22.2, 30.0, 38.1, 45.0)
PADDING = 31
UP_DOWN, LEFT_RIGHT = Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT


def samples(rng, height, width):
    """Noise, a photograph and an image of one colour; uint8[N, H, W, 3]."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = rng.normal(size=(height, width, 3)).cumsum(0).cumsum(1)
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * 255
    constant = np.full((height, width, 3), (255, 3, 120))
    return np.stack([noise, smooth, constant]).astype(np.uint8)


def shifted(image, matrix, resample):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample)


def sheared(image, v, far, padding, axis):
    """Shears in two steps, as the paper's code does to anchor the shear at the border."""
    bicubic, nearest = Image.Resampling.BICUBIC, Image.Resampling.NEAREST
    along = np.sign(v) * padding
    flip = UP_DOWN if axis == "x" else LEFT_RIGHT
    image = image.transpose(flip) if far else image
    if axis == "x":
        image = shifted(image, (1, v, -along, 0, 1, padding), bicubic)
        image = shifted(image, (1, 0, along, 0, 1, -padding), nearest)
    else:
        image = shifted(image, (1, 0, padding, v, 1, -along), bicubic)
        image = shifted(image, (1, 0, -padding, 0, 1, along), nearest)
    return image.transpose(flip) if far else image


def oracle(name, image, v, far, outside):
    """Pads by reflection, applies Pillow and crops; or applies Pillow alone."""
    height, width = image.shape[:2]
    p = PADDING if outside == "reflect" else 0
    picture = Image.fromarray(np.pad(image, ((p, p), (p, p), (0, 0)), mode="reflect"))
    nearest = Image.Resampling.NEAREST
    if name.startswith("Shear"):
        picture = sheared(picture, v, far, p, name[-1].lower())
    elif name == "TranslateX":
        picture = shifted(picture, (1, 0, v * width, 0, 1, 0), nearest)
    elif name == "TranslateY":
        picture = shifted(picture, (1, 0, 0, 0, 1, v * height), nearest)
    else:
        picture = picture.rotate(v, Image.Resampling.BICUBIC)
    return np.asarray(picture.crop((p, p, p + width, p + height)))


def matrices(name, v, far, height, width):
    """Affine maps that ought to equal the operation of the same name."""
    if name == "ShearX":
        return shear_matrices(v, far, height, width, axis="x")
    if name == "ShearY":
        return shear_matrices(v, far, height, width, axis="y")
    if name == "Rotate":
        return rotation_matrices(v, height, width)
    if name == "TranslateX":
        return translation_matrices(v * width, axis="x")
    return translation_matrices(v * height, axis="y")


def ours(name, images, v, far, outside):
    height, width = images.shape[1:3]
    if name == "ShearX":
        return shear_x(images, v, far, outside=outside)
    if name == "ShearY":
        return shear_y(images, v, far, outside=outside)
    if name == "TranslateX":
        return translate_x(images, v * width, outside=outside)
    if name == "TranslateY":
        return translate_y(images, v * height, outside=outside)
    return rotate(images, v, outside=outside)


def grid(name, images):
    """All combinations of images, magnitudes, directions and sides."""
    operation = OPERATIONS[operation_index(name)]
    sides = (False, True) if name.startswith("Shear") else (False,)
    rows = [
        (image, sign * np.float32(m), far)
        for image in images
        for m in MAGNITUDES
        for sign in (1, -1)
        for far in sides
    ]
    batch, m, far = (np.array(column) for column in zip(*rows, strict=True))
    value = np.asarray(operation_value(operation, jnp.abs(m))) * np.where(m < 0, -1, 1)
    exact = m.astype(np.float64) / 30 * operation.high
    return batch, value.astype(np.float32), exact, far


run = jax.jit(ours, static_argnums=(0, 4))
NAMES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


@pytest.mark.parametrize("outside", ["reflect", "black"])
@pytest.mark.parametrize("size", [(32, 32), (29, 35)])
@pytest.mark.parametrize("name", NAMES)
def test_a_geometric_operation_is_that_of_pillow(name, size, outside, rng):
    images, value, exact, far = grid(name, samples(rng, *size))
    rows = zip(images, exact, far, strict=True)
    expected = np.stack([oracle(name, image, v, f, outside) for image, v, f in rows]).astype(int)
    floats = jnp.asarray(images, jnp.float32)
    found = np.asarray(run(name, floats, jnp.asarray(value), jnp.asarray(far), outside))
    assert found.dtype == np.float32
    maps = matrices(name, jnp.asarray(value), jnp.asarray(far), *size)
    general = np.asarray(jax.jit(affine, static_argnames="outside")(floats, maps, outside=outside))
    if name.startswith("Translate"):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(general, expected)
        return
    for result in (found, general):
        # Places in float32 instead of float64, before rounding down.
        apart = np.abs(result - expected)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 2e-3


def test_pixels_and_weights_belong_to_the_same_place_in_optimised_programs(rng):
    # Of these places, some are integers up to rounding errors. Computed twice, with and without
    # fused multiply-adds, they would lie on both sides.
    images, value, exact, far = grid("Rotate", samples(rng, 29, 35))
    rows = zip(images, exact, far, strict=True)
    expected = np.stack([oracle("Rotate", image, v, f, "reflect") for image, v, f in rows])
    maps = matrices("Rotate", jnp.asarray(value), jnp.asarray(far), 29, 35)
    floats = jnp.asarray(images, jnp.float32)
    lowered = jax.jit(affine, static_argnames="outside").lower(floats, maps, outside="reflect")
    # Undoes JAX_DISABLE_MOST_OPTIMIZATIONS.
    options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    found = np.asarray(lowered.compile(compiler_options=options)(floats, maps))
    assert np.abs(found - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1), (9, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_small_images_are_mirrored_as_often_as_needed(name, size, rng):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    v = {"Rotate": 33.0}.get(name, 0.4)
    arrays = jnp.float32([v]), jnp.array([False])
    found = run(name, jnp.asarray(image, jnp.float32)[None], *arrays, "reflect")
    expected = oracle(name, image, v, False, "reflect").astype(int)
    assert np.abs(np.asarray(found[0]) - expected).max() <= 1


@pytest.mark.parametrize("outside", ["reflect", "black"])
def test_a_map_that_moves_nothing_returns_the_images(outside, rng):
    images = jnp.asarray(samples(rng, 7, 8), jnp.float32)
    zero, far = jnp.zeros(3), jnp.array([True, False, True])
    for name in NAMES:
        np.testing.assert_array_equal(run(name, images, zero, far, outside), images)


def test_a_translation_beyond_the_image_is_black_or_mirrored(rng):
    images = jnp.asarray(samples(rng, 4, 5), jnp.float32)
    far = jnp.full(3, 8.0)
    assert not np.any(translate_x(images, far, outside="black"))
    # The mirror has a period of 2·(5 - 1) columns.
    np.testing.assert_array_equal(translate_x(images, far, outside="reflect"), images)
