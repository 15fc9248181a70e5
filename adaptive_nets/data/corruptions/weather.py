"""Weather: snow, frost and fog."""

from __future__ import annotations

import numpy as np

from adaptive_nets.data.corruptions.parameters import CIFAR_SIDE, Parameters
from adaptive_nets.data.corruptions.pixels import Generators, draw, to_bytes, to_intensities
from adaptive_nets.data.corruptions.sampling import blur_along_lines, zoom_centre
from adaptive_nets.data.corruptions.textures import (
    FROST_COUNT,
    FROST_SIDE,
    fractal_clouds,
    frost_textures,
)

# Red, green and blue in the luminance of ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# The official generator shrinks its photographs of frost fivefold for CIFAR.
_CIFAR_FROST_STEP = 5


def snow(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Whitens the image and adds flakes that fall at 45 to 135 degrees to the horizontal.

    Flakes are normal noise, enlarged, cut below a threshold and blurred along the fall; the layer
    is added once upright and once turned by 180 degrees.

    Args:
        images: uint8[N, H, W, 3].
        parameters: seven numbers, see `parameters.COLUMNS`.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    mean, deviation, zoom, threshold, radius, motion, kept = parameters
    shape = images.shape[1:3]
    flakes = draw(generators, shape, lambda generator: generator.normal(mean, deviation, shape))
    angles = draw(generators, (), lambda generator: np.asarray(generator.uniform(-135, -45)))
    flakes = zoom_centre(flakes[..., None], zoom)
    flakes = to_bytes(np.where(flakes < threshold, 0, flakes))
    flakes = blur_along_lines(flakes, angles, radius=int(radius), deviation=motion)
    flakes = to_intensities(flakes, np.float32)
    pixels = to_intensities(images, np.float32)
    luminance = (pixels * _LUMINANCE).sum(axis=-1, keepdims=True)
    whitened = kept * pixels + (1 - kept) * np.maximum(pixels, 1.5 * luminance + 0.5)
    return to_bytes(whitened + flakes + flakes[:, ::-1, ::-1])


def frost(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Adds a random cut of one of five frost textures.

    The official generators add photographs of frost that come with them; here textures are
    generated, see `textures.frost_textures`. As there, images of CIFAR's size use every fifth
    pixel of a texture.

    Args:
        images: uint8[N, H, W, 3].
        parameters: weight of the image and weight of the frost.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    kept, added = parameters
    _, H, W, _ = images.shape
    step = _CIFAR_FROST_STEP if max(H, W) <= CIFAR_SIDE else 1
    textures = frost_textures()[:, step // 2 :: step, step // 2 :: step]
    side = FROST_SIDE // step
    ice = np.empty_like(images)
    for n, generator in enumerate(generators):
        texture = textures[generator.integers(FROST_COUNT)]
        top, left = generator.integers(0, side, 2)
        ice[n] = texture.take(np.arange(top, top + H), 0, mode="wrap").take(
            np.arange(left, left + W), 1, mode="wrap"
        )
    return to_bytes(kept * to_intensities(images) + added * to_intensities(ice))


def fog(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Adds fractal clouds, then scales the sum so that the brightest pixel keeps its value.

    Args:
        images: uint8[N, H, W, 3].
        parameters: weight of the clouds and decay of the fractal.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    weight, decay = parameters
    _, H, W, _ = images.shape
    side = 1 << (max(H, W) - 1).bit_length()
    clouds = fractal_clouds(generators, side, decay)[:, :H, :W, None]
    pixels = to_intensities(images)
    brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
    return to_bytes((pixels + weight * clouds) * brightest / (brightest + weight))
