"""Masks for benchmarks: regular grids, random positions, smooth blobs."""

from __future__ import annotations

import numpy as np

# Keep fraction -> (vertical, horizontal) step of a regular grid.
_STEPS = {0.5: (1, 2), 0.25: (2, 2), 1 / 9: (3, 3), 1.0: (1, 1)}


def fixed(kind: str, rng: np.random.Generator, size: tuple[int, int], keep: float) -> np.ndarray:
    """Returns bool[H, W]: every k-th row and column ("grid"), or random positions."""
    mask = np.zeros(size, bool)
    if kind == "grid":
        down, right = _STEPS[keep]
        mask[::down, ::right] = True
    else:
        mask.flat[rng.permutation(mask.size)[: max(1, int(keep * mask.size))]] = True
    return mask


def blobs(rng: np.random.Generator, shape: tuple[int, ...], fraction: float) -> np.ndarray:
    """Returns bool[N, H, W] with about `fraction` True, in patches like those of halting maps."""
    if fraction <= 0:
        return np.zeros(shape, bool)
    # White noise through a Gaussian filter with a width of a seventh of the map.
    down, right = np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])[None]
    pass_band = np.exp(-2 * (np.pi * shape[1] / 7) ** 2 * (down**2 + right**2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * pass_band, s=shape[1:])
    return noise >= np.quantile(noise, 1 - fraction)
