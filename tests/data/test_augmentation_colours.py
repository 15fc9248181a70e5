"""Colour operations of greedy policy search against Pillow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from adaptive_nets.data.augmentations import OPERATIONS, operation_index, operation_value
from adaptive_nets.data.augmentations.colour_operations import grey, smooth
from adaptive_nets.data.augmentations.sub_policy import draw_parts, transform

pytestmark = pytest.mark.core

MAGNITUDES = (0.0, 0.3, 4.0, -4.0, 17.3, -17.3, 30.0, -30.0, 37.5, 45.0, -45.0)


def photographs(rng, height, width, count=3):
    """Smooth images with an edge, of different contrast."""
    noise = rng.normal(size=(count, height, width, 3)).cumsum(1).cumsum(2)
    noise[:, : height // 2, width // 3 :] += noise.std() / 2
    noise -= noise.min((1, 2, 3), keepdims=True)
    top = np.linspace(90, 255, count)[:, None, None, None]
    return (noise / noise.max((1, 2, 3), keepdims=True) * top).astype(np.uint8)


def samples(rng, height, width):
    """Noise, photographs, images of one colour and of two colours; uint8[N, H, W, 3]."""
    noise = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    constant = np.zeros((3, height, width, 3), np.uint8)
    constant += np.array([[0, 0, 0], [255, 255, 255], [7, 128, 200]], np.uint8)[:, None, None]
    two = np.where(noise[:1] < 250, np.uint8(40), np.uint8(90))
    return np.concatenate([noise, photographs(rng, height, width), constant, two])


def oracle(name, image, magnitude):
    """Applies Pillow as the paper's code does; the value is computed in float64."""
    operation = OPERATIONS[operation_index(name)]
    m = magnitude if operation.signed else abs(magnitude)
    v = (m / 30) * (operation.high - operation.low) + operation.low
    image = Image.fromarray(image)
    actions = {
        "Identity": lambda: image,
        "AutoContrast": lambda: ImageOps.autocontrast(image, v),
        "Solarize": lambda: ImageOps.solarize(image, v),  # pyright: ignore
        "SolarizeAdd": lambda: Image.blend(image, ImageOps.solarize(image, v), 0.5),  # pyright: ignore
        "Posterize": lambda: image.point(lambda x: x & ~(2 ** (8 - int(v)) - 1)),
        "Contrast": lambda: ImageEnhance.Contrast(image).enhance(1 + v),
        "Color": lambda: ImageEnhance.Color(image).enhance(1 + v),
        "Brightness": lambda: ImageEnhance.Brightness(image).enhance(1 + v),
        "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(1 + v),
        "Invert": lambda: ImageOps.invert(image),
        "Equalize": lambda: ImageOps.equalize(image),
    }
    return np.asarray(actions[name]())


EQUAL = ("Identity", "Solarize", "SolarizeAdd", "Posterize", "Invert", "Equalize")
ROUNDED = ("AutoContrast", "Contrast", "Color", "Brightness", "Sharpness")


def ours(name, images, magnitudes):
    operation = OPERATIONS[operation_index(name)]

    @jax.jit
    def run(images, magnitudes):
        parts = draw_parts(jax.random.key(0), images)
        value = operation_value(operation, magnitudes)
        return transform(name, images, value, parts, outside="reflect")

    return np.asarray(run(jnp.asarray(images, jnp.float32), jnp.asarray(magnitudes)))


@pytest.mark.parametrize("name", EQUAL + ROUNDED)
@pytest.mark.parametrize("size", [(32, 32), (29, 35)])
def test_a_colour_operation_is_that_of_pillow(name, size, rng):
    images = samples(rng, *size)
    random = rng.uniform(-45, 45, 8).astype(np.float32)
    magnitudes = np.concatenate([np.array(MAGNITUDES, np.float32), random])
    pairs = [(image, m) for image in images for m in magnitudes]
    batch, amounts = np.stack([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    found = ours(name, batch, amounts)
    expected = np.stack([oracle(name, image, float(m)) for image, m in pairs]).astype(np.float32)
    assert found.dtype == np.float32
    if name in EQUAL:
        np.testing.assert_array_equal(found, expected)
    else:
        # Float32 instead of Pillow's mixture of float32 and float64, before rounding down. Pillow's
        # stretched contrast falls below 255 at the brightest value of some channels.
        apart = np.abs(found - expected)
        assert apart.max() <= 1
        assert (apart > 0).mean() < (1e-2 if name == "AutoContrast" else 2e-4)


def test_bits_at_and_below_zero_give_black(rng):
    images = samples(rng, 5, 6)[:4]
    found = ours("Posterize", images, np.array([36.0, 40.1, 45.0, 49.0], np.float32))
    assert not found.any()


@pytest.mark.parametrize("size", [(32, 32), (29, 35), (3, 3), (2, 5), (1, 1)])
def test_grey_levels_and_smoothing_are_those_of_pillow(size, rng):
    images = samples(rng, *size)
    pictures = [Image.fromarray(image) for image in images]
    greys = np.stack([np.asarray(picture.convert("L")) for picture in pictures])
    floats = jnp.asarray(images, jnp.float32)
    np.testing.assert_array_equal(grey(floats)[..., 0], greys)
    smoothed = np.stack([np.asarray(p.filter(ImageFilter.SMOOTH)) for p in pictures])
    np.testing.assert_array_equal(smooth(floats), smoothed)
