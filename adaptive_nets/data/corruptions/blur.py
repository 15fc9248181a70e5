"""Blur: defocus, glass, motion and zoom."""

from __future__ import annotations

import math

import numpy as np
import scipy

from adaptive_nets.data.corruptions.parameters import Parameters
from adaptive_nets.data.corruptions.pixels import Generators, draw, to_bytes, to_intensities
from adaptive_nets.data.corruptions.sampling import blur_along_lines, zoom_centre

# Half the side of the grid on which a disk is drawn, pixels.
_DISK_REACH = 8


def disk_kernel(radius: float, deviation: float) -> np.ndarray:
    """Returns the kernel of a defocused lens: a disk, smoothed by a small Gaussian.

    Args:
        radius: radius of the disk, pixels.
        deviation: standard deviation of the smoothing, which covers 3 x 3 pixels for radii up to 8
            and 5 x 5 pixels beyond.

    Returns:
        float64[K, K] without empty outer rows. Its sum is 1, but 1.3 % and 1.1 % more for radii of
        8 and 10, whose disks touch the border of the grid, as in the official generator.
    """
    reach = max(_DISK_REACH, math.ceil(radius))
    axis = np.arange(-reach, reach + 1)
    disk = (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius**2).astype(np.float64)
    taps = np.arange(-1, 2) if radius <= _DISK_REACH else np.arange(-2, 3)
    smoothing = np.exp(-(taps**2) / (2 * deviation**2))
    smoothing /= smoothing.sum()
    disk /= disk.sum()
    for along in (0, 1):
        disk = scipy.ndimage.correlate1d(disk, smoothing, axis=along, mode="mirror")
    # Weights below the resolution of the official float32 kernel are empty.
    used = int(np.abs(axis[disk.max(axis=0) > 1e-9]).max())
    return disk[reach - used : reach + used + 1, reach - used : reach + used + 1]


def defocus_blur(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Blurs by the disk of a defocused lens.

    Args:
        images: uint8[N, H, W, 3].
        parameters: radius of the disk and deviation of its smoothing.
        generators: unused.

    Returns:
        uint8[N, H, W, 3].
    """
    del generators
    kernel = disk_kernel(*parameters)
    weights = kernel[None, :, :, None]
    return to_bytes(scipy.ndimage.correlate(to_intensities(images), weights, mode="mirror"))


def glass_blur(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Blurs, copies pixels from random neighbours, and blurs again.

    From the lower right corner to the upper left, each pixel (h, w) takes the value of pixel
    (h + dy, w + dx), with dy and dx uniform in -d to d - 1. The paper speaks of a shuffle, but the
    exchange in the official generators acts on views of one array, which makes it a copy.

    Args:
        images: uint8[N, H, W, 3].
        parameters: deviation of the blur, longest shift d and number of passes.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    deviation, shift, passes = parameters[0], int(parameters[1]), int(parameters[2])
    _, H, W, _ = images.shape
    shuffled = _to_bytes_of_blur(images, deviation).reshape(len(images), H * W, 3)
    rows, columns = np.arange(H - shift, shift, -1), np.arange(W - shift, shift, -1)
    targets = (rows[:, None] * W + columns).ravel()
    order = targets.tolist() * passes
    for n, generator in enumerate(generators):
        moves = generator.integers(-shift, shift, (passes, targets.size, 2))
        sources = (targets + moves[..., 0] * W + moves[..., 1]).ravel().tolist()
        # A later copy may read a pixel that an earlier one wrote.
        origin = list(range(H * W))
        for target, source in zip(order, sources, strict=True):
            origin[target] = origin[source]
        shuffled[n] = shuffled[n, origin]
    return _to_bytes_of_blur(shuffled.reshape(images.shape), deviation)


def motion_blur(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Blurs along a line at a random angle of at most 45 degrees to the horizontal.

    Args:
        images: uint8[N, H, W, 3].
        parameters: radius, and deviation of the weights along the line.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    radius, deviation = parameters
    angles = draw(generators, (), lambda generator: np.asarray(generator.uniform(-45, 45)))
    return blur_along_lines(images, angles, radius=int(radius), deviation=deviation)


def zoom_blur(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Averages the image and its enlargements by zoom factors that begin at 1.

    Args:
        images: uint8[N, H, W, 3].
        parameters: end of the zoom factors, which is excluded, and their step.
        generators: unused.

    Returns:
        uint8[N, H, W, 3].
    """
    del generators
    end, step = parameters
    # The same call as in the generators: rounding puts 1.06, 1.11 and others among the factors.
    factors = np.arange(1, end, step)
    pixels = to_intensities(images, np.float32)
    total = pixels.copy()
    for factor in factors:
        total += zoom_centre(pixels, float(factor))
    return to_bytes(total / (len(factors) + 1))


def _to_bytes_of_blur(images: np.ndarray, deviation: float) -> np.ndarray:
    """Blurs uint8[N, H, W, 3] by a Gaussian that ends at four deviations."""
    widths = (0, deviation, deviation, 0)
    pixels = to_intensities(images)
    return to_bytes(scipy.ndimage.gaussian_filter(pixels, widths, mode="nearest", truncate=4))
