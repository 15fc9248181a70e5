"""Parameters of the five severities, one table for CIFAR-C and one for ImageNet-C.

Source: the two generators published with Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019 (`make_cifar_c.py` and
`make_imagenet_c.py` in the repository hendrycks/robustness). Lengths are in pixels, intensities in
shares of the full range.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SEVERITIES = (1, 2, 3, 4, 5)
"""Severities of every kind, from mild to strong."""

CIFAR_SIDE = 64
"""Longest side, pixels, of images that use the table of CIFAR-C."""

Parameters = tuple[float, ...]

COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gaussian_noise": ("standard deviation",),
        "shot_noise": ("photons of a white pixel",),
        "impulse_noise": ("share of changed values",),
        "defocus_blur": ("radius of the disk", "deviation of its smoothing"),
        "glass_blur": ("deviation of the blur", "longest shift", "passes"),
        "motion_blur": ("radius", "deviation along the line"),
        "zoom_blur": ("end of the zoom factors, excluded", "step"),
        "snow": (
            "mean of the flakes",
            "deviation of the flakes",
            "zoom of the flakes",
            "threshold of the flakes",
            "radius of the motion",
            "deviation of the motion",
            "weight of the image",
        ),
        "frost": ("weight of the image", "weight of the frost"),
        "fog": ("weight of the fog", "decay of the fractal"),
        "brightness": ("added value",),
        "contrast": ("kept contrast",),
        "elastic_transform": ("scale of the shifts", "deviation of their blur", "affine shift"),
        "pixelate": ("share of the side",),
        "jpeg_compression": ("quality",),
    }
)
"""Meaning of the numbers of each kind, in order."""

CIFAR: Mapping[str, tuple[Parameters, ...]] = MappingProxyType(
    {
        "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
        "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
        "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        # The generator states these as shares of a side of 32 pixels.
        "elastic_transform": (
            (0, 0, 2.56),
            (1.6, 6.4, 2.24),
            (2.56, 1.92, 1.92),
            (3.2, 1.28, 1.6),
            (3.2, 0.96, 0.96),
        ),
        "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
    }
)
"""Kind -> parameters of severities 1 to 5 for images of 32 x 32 pixels."""

IMAGENET: Mapping[str, tuple[Parameters, ...]] = MappingProxyType(
    {
        "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
        "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        # Shares of 244 pixels; the generator's comment says that 224 was meant.
        "elastic_transform": (
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
        "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
    }
)
"""Kind -> parameters of severities 1 to 5 for images of 224 x 224 pixels."""


def parameters_of(kind: str, severity: int, *, height: int, width: int) -> Parameters:
    """Returns the parameters of a corruption for images of a size.

    Args:
        kind: name of the corruption.
        severity: 1 to 5.
        height: height of the images, pixels.
        width: width of the images, pixels.

    Returns:
        The numbers that `COLUMNS` names: of CIFAR-C if no side exceeds 64 pixels, else of
        ImageNet-C.
    """
    table = CIFAR if max(height, width) <= CIFAR_SIDE else IMAGENET
    return table[kind][severity - 1]
