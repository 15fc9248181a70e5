"""Common corruptions of images: fifteen kinds in five severities, as in CIFAR-C and ImageNet-C.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. `corrupt` makes corrupted images from clean ones, `load_official` reads
the files of CIFAR-10-C and CIFAR-100-C, and `unnormalised_mce` and `mean_ce` average the errors.

The corruptions are written here with NumPy, SciPy and Pillow: the packages `imagecorruptions`
(last release 2020) and `imagecorruptions-imaug` (2026) need OpenCV and scikit-image, the latter
also numba, and have the parameters of ImageNet-C only.
"""

from __future__ import annotations

from adaptive_nets.data.corruptions.kinds import (
    CORRUPTIONS,
    IMAGENET_DEVIATION,
    corrupt,
    deviation,
)
from adaptive_nets.data.corruptions.measures import ALEXNET_ERRORS, mean_ce, unnormalised_mce
from adaptive_nets.data.corruptions.official import load_official, official_corruptions
from adaptive_nets.data.corruptions.parameters import SEVERITIES

__all__ = [
    "ALEXNET_ERRORS",
    "CORRUPTIONS",
    "IMAGENET_DEVIATION",
    "SEVERITIES",
    "corrupt",
    "deviation",
    "load_official",
    "mean_ce",
    "official_corruptions",
    "unnormalised_mce",
]
