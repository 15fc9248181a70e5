"""Noise: Gaussian, shot and impulse noise."""

from __future__ import annotations

import numpy as np

from adaptive_nets.data.corruptions.parameters import Parameters
from adaptive_nets.data.corruptions.pixels import Generators, draw, to_bytes, to_intensities


def gaussian_noise(
    images: np.ndarray, parameters: Parameters, generators: Generators
) -> np.ndarray:
    """Adds independent normal noise to every value.

    Args:
        images: uint8[N, H, W, 3].
        parameters: standard deviation.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    (deviation,) = parameters
    shape = images.shape[1:]
    noise = draw(generators, shape, lambda generator: generator.standard_normal(shape))
    return to_bytes(to_intensities(images) + deviation * noise)


def shot_noise(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Replaces every value x by Poisson(c x) / c.

    Args:
        images: uint8[N, H, W, 3].
        parameters: c, the expected photons of a white pixel.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    (photons,) = parameters
    noisy = np.empty(images.shape)
    for n, generator in enumerate(generators):
        noisy[n] = generator.poisson(to_intensities(images[n]) * photons)
    return to_bytes(noisy / photons)


def impulse_noise(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Sets values to black or white, with equal probability and independently in each channel.

    Args:
        images: uint8[N, H, W, 3].
        parameters: probability that a value is replaced.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    (amount,) = parameters
    shape = images.shape[1:]
    chance = draw(generators, shape, lambda generator: generator.random(shape))
    return np.where(chance < amount, np.where(chance < amount / 2, 255, 0), images).astype(np.uint8)
