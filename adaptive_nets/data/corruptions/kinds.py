"""The fifteen kinds of corruption and the function that applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from adaptive_nets.data.corruptions import blur, digital, noise, weather
from adaptive_nets.data.corruptions.parameters import SEVERITIES, Parameters, parameters_of
from adaptive_nets.data.corruptions.pixels import Generators
from adaptive_nets.runtime.errors import UserError, did_you_mean

SMALLEST_SIDE = 8
"""Shortest side, pixels, of images that can be corrupted."""

IMAGENET_DEVIATION = (
    "the files of ImageNet-C were also stored as JPEG of quality 85, which is left out here"
)
"""Deviation of all kinds from ImageNet-C; the files of CIFAR-C hold uncompressed pixels."""

# Pixels of the images that are processed together; their arrays fit into the cache or nearly so.
_BLOCK_PIXELS = 1 << 18

_MAGICK = "motion blur is our own; it differs from ImageMagick 6.9 by one grey level in rare pixels"
_WARP = "positions of the affine map are exact, where OpenCV before version 5 rounds to 1/32 pixel"
_TEXTURES = (
    "five generated textures replace the photographs of frost; their brightness is our choice"
)


@dataclass(frozen=True)
class _Kind:
    """One kind of corruption.

    Attributes:
        apply: maps uint8[N, H, W, 3], parameters and N generators to uint8[N, H, W, 3].
        random: whether `apply` uses the generators.
        deviation: difference from the official definition; empty if there is none but the random
            numbers.
    """

    apply: Callable[[np.ndarray, Parameters, Generators], np.ndarray]
    random: bool = True
    deviation: str = ""


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "gaussian_noise": _Kind(noise.gaussian_noise),
        "shot_noise": _Kind(noise.shot_noise),
        "impulse_noise": _Kind(noise.impulse_noise),
        "defocus_blur": _Kind(blur.defocus_blur, random=False),
        "glass_blur": _Kind(blur.glass_blur),
        "motion_blur": _Kind(blur.motion_blur, deviation=_MAGICK),
        "zoom_blur": _Kind(blur.zoom_blur, random=False),
        "snow": _Kind(weather.snow, deviation=_MAGICK),
        "frost": _Kind(weather.frost, deviation=_TEXTURES),
        "fog": _Kind(weather.fog),
        "brightness": _Kind(digital.brightness, random=False),
        "contrast": _Kind(digital.contrast, random=False),
        "elastic_transform": _Kind(digital.elastic_transform, deviation=_WARP),
        "pixelate": _Kind(digital.pixelate, random=False),
        "jpeg_compression": _Kind(digital.jpeg_compression, random=False),
    }
)

CORRUPTIONS: tuple[str, ...] = tuple(_KINDS)
"""Names of the kinds, in the order of the paper."""


def corrupt(
    images: np.ndarray, kind: str, severity: int, *, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Corrupts a batch of images.

    Image i of the batch depends on its pixels and on (seed, kind, severity, first + i) only. A data
    set may therefore be corrupted in batches of any size.

    Args:
        images: uint8[N, H, W, 3], sides of at least 8 pixels. If no side exceeds 64 pixels, the
            parameters are those of CIFAR-C, else those of ImageNet-C.
        kind: one of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: seed of the random numbers, at least 0.
        first: index of the first image in the data set, at least 0.

    Returns:
        uint8[N, H, W, 3], a new array.

    Raises:
        UserError: the kind or the severity is unknown.
        ValueError: the images have another shape or type, or a number is negative.

    Example:
        >>> images = np.full((2, 32, 32, 3), 128, np.uint8)
        >>> corrupt(images, "brightness", 5)[0, 0, 0]
        array([204, 204, 204], dtype=uint8)
    """
    entry = _lookup(kind)
    check_severity(severity)
    _check_images(images)
    for name, number in (("seed", seed), ("first", first)):
        if number < 0:
            raise ValueError(f"{name} is {number}; expected 0 or more")
    N, H, W, _ = images.shape
    parameters = parameters_of(kind, severity, height=H, width=W)
    number = CORRUPTIONS.index(kind)
    corrupted = np.empty_like(images, order="C")
    block = max(_BLOCK_PIXELS // (H * W), 1)
    for start in range(0, N, block):
        stop = min(start + block, N)
        generators = [
            np.random.default_rng((seed, number, severity, first + i))
            for i in range(start, stop)
            if entry.random
        ]
        corrupted[start:stop] = entry.apply(images[start:stop], parameters, generators)
    return corrupted


def deviation(kind: str) -> str:
    """Returns the difference of a kind from its official definition.

    Args:
        kind: one of `CORRUPTIONS`.

    Returns:
        A clause; empty if only the random numbers differ. `IMAGENET_DEVIATION` holds for all kinds.

    Raises:
        UserError: the kind is unknown.
    """
    return _lookup(kind).deviation


def check_kind(kind: str) -> None:
    """Checks the name of a corruption.

    Raises:
        UserError: the kind is unknown.
    """
    _lookup(kind)


def check_severity(severity: int) -> None:
    """Checks a severity.

    Raises:
        UserError: the severity is not one of 1 to 5.
    """
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise UserError(f"severity {severity!r} does not exist; expected an integer from 1 to 5")


def _lookup(kind: str) -> _Kind:
    entry = _KINDS.get(kind)
    if entry is None:
        raise UserError(f"corruption {kind!r} does not exist; {did_you_mean(kind, CORRUPTIONS)}")
    return entry


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"images have dtype {images.dtype}; expected uint8")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images have shape {images.shape}; expected (N, H, W, 3)")
    if min(images.shape[1:3]) < SMALLEST_SIDE:
        raise ValueError(
            f"images have shape {images.shape}; expected sides of at least {SMALLEST_SIDE} pixels"
        )
