"""Generated textures: fractal clouds for fog and ice for frost."""

from __future__ import annotations

import functools

import numpy as np
import scipy

from adaptive_nets.data.corruptions.pixels import Generators, draw

FROST_COUNT = 5
"""Number of frost textures, as many as the official generators choose from."""

FROST_SIDE = 480
"""Side of a frost texture, pixels."""

_FROST_SEED = 20190506
_CRYSTALS = 50
_DIRECTIONS = 6
_STREAK_RATIO = 8.0
_ICE = np.array([0.85, 0.94, 1.0])  # Red, green and blue of the brightest ice.
_WIBBLE = 100.0


def fractal_clouds(generators: Generators, side: int, decay: float) -> np.ndarray:
    """Draws plasma fractals by the diamond-square algorithm on a torus.

    Each point is the mean of four neighbours plus uniform noise. The noise of the first level has
    the amplitude 100^2; each level divides it by `decay` squared.

    Args:
        generators: one for each of N fractals.
        side: side of the square, a power of two.
        decay: square root of the factor between the amplitudes of successive levels.

    Returns:
        float64[N, side, side], each scaled to the range from 0 to 1.
    """
    count = side * side - 1
    noise = draw(generators, (count,), lambda generator: generator.uniform(-1, 1, count))
    clouds = np.zeros((len(generators), side, side))
    step, wibble, used = side, _WIBBLE, 0
    while step > 1:
        half, amplitude, points = step // 2, wibble**2, (side // step) ** 2
        corners, centres = clouds[:, ::step, ::step], clouds[:, half::step, half::step]
        tops, lefts = clouds[:, ::step, half::step], clouds[:, half::step, ::step]
        levels = noise[:, used : used + 3 * points].reshape(-1, 3, *corners.shape[1:]) * amplitude
        right, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        centres[...] = (corners + right + below + np.roll(right, -1, 1)) / 4 + levels[:, 0]
        tops[...] = (centres + np.roll(centres, 1, 1) + corners + right) / 4 + levels[:, 1]
        lefts[...] = (centres + np.roll(centres, 1, 2) + corners + below) / 4 + levels[:, 2]
        step, wibble, used = half, wibble / decay, used + 3 * points
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    return clouds / clouds.max(axis=(1, 2), keepdims=True)


@functools.cache
def frost_textures() -> np.ndarray:
    """Generates the textures that stand in for the official photographs of frost.

    A texture is a mosaic of ice crystals with streaks in the direction of each crystal, over clouds
    that make the ice thin in places. Its brightness and contrast are our choice. The textures are
    the same in every run and continue periodically beyond their borders.

    Returns:
        uint8[5, 480, 480, 3], read-only.
    """
    generator = np.random.default_rng(_FROST_SEED)
    textures = np.stack([_frost_texture(generator) for _ in range(FROST_COUNT)])
    textures.flags.writeable = False
    return textures


def _frost_texture(generator: np.random.Generator) -> np.ndarray:
    side = FROST_SIDE
    clouds = _filtered_noise(generator, 0.0, 1.0)
    streaks = np.stack(
        [
            _filtered_noise(generator, np.pi * turn / _DIRECTIONS, _STREAK_RATIO)
            for turn in range(_DIRECTIONS)
        ]
    )
    # Clouds shift the borders between crystals, so that these are uneven.
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1)
    shifted = (grid + 12 * clouds[..., None]) % side
    centres = generator.uniform(0, side, (_CRYSTALS, 2))
    _, crystal = scipy.spatial.KDTree(centres, boxsize=side).query(shifted)
    direction = generator.integers(_DIRECTIONS, size=_CRYSTALS)[crystal]
    streak = np.take_along_axis(streaks, direction[None], axis=0)[0]
    light = np.clip(0.55 + 0.14 * clouds + 0.14 * streak, 0, 1)
    # Thin ice is darker and bluer.
    return (255 * light[..., None] ** (1 / _ICE) * _ICE).astype(np.uint8)


def _filtered_noise(generator: np.random.Generator, angle: float, ratio: float) -> np.ndarray:
    """Draws periodic noise with amplitudes of 1 / frequency^1.2, stretched along a direction.

    Args:
        generator: random generator.
        angle: direction of the stretching, radians.
        ratio: factor of the stretching.

    Returns:
        float64[480, 480] of mean 0 and deviation 1.
    """
    rows, columns = scipy.fft.fftfreq(FROST_SIDE)[:, None], scipy.fft.rfftfreq(FROST_SIDE)[None, :]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = columns * np.sin(angle) - rows * np.cos(angle)
    frequency = np.hypot(ratio * along, across)
    frequency[0, 0] = np.inf  # No constant part.
    # Nothing is larger than about a tenth of the texture.
    weights = np.maximum(frequency, 10 / FROST_SIDE) ** -1.2
    white = generator.standard_normal((FROST_SIDE, FROST_SIDE))
    noise = np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(white) * weights, s=white.shape))
    return noise / noise.std()
