"""Errors under corruption, averaged: the measures of CIFAR-C and ImageNet-C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from adaptive_nets.data.corruptions.kinds import check_kind
from adaptive_nets.data.corruptions.parameters import SEVERITIES

ALEXNET_ERRORS: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.92264,
        "defocus_blur": 0.81988,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.79836,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.71784,
        "jpeg_compression": 0.6065,
    }
)
"""Top-1 error of AlexNet on ImageNet-C, averaged over the five severities of each kind.

Source: Hendrycks and Dietterich, ICLR 2019, and the evaluation script of its repository.
"""


def unnormalised_mce(errors: np.ndarray) -> float:
    """Computes the mean error over kinds and severities (muCE), the measure of CIFAR-C.

    Args:
        errors: float[kinds, severities], fractions in [0, 1].

    Returns:
        The plain mean, a fraction.

    Raises:
        ValueError: the shape is another, a value is NaN or outside [0, 1], or there is none.
    """
    return float(_checked(errors).mean())


def mean_ce(errors: np.ndarray, kinds: Sequence[str]) -> float:
    """Computes the mean corruption error relative to AlexNet (mCE), the measure of ImageNet-C.

    mCE is the mean over kinds c of sum_s E(c, s) / sum_s E_AlexNet(c, s). Since `ALEXNET_ERRORS`
    are means over the five severities, this equals mean_s E(c, s) / E_AlexNet(c).

    Args:
        errors: float[kinds, 5], top-1 errors as fractions in [0, 1].
        kinds: names of the rows, distinct.

    Returns:
        The mean ratio; 1 is as robust as AlexNet.

    Raises:
        UserError: a kind is unknown.
        ValueError: the shape is another, a value is NaN or outside [0, 1], or a kind is repeated.
    """
    checked = _checked(errors)
    if checked.shape != (len(kinds), len(SEVERITIES)):
        raise ValueError(
            f"errors have shape {checked.shape}; expected ({len(kinds)}, {len(SEVERITIES)}): "
            "a row for each kind and a column for each severity"
        )
    for kind in kinds:
        check_kind(kind)
    if len(set(kinds)) != len(kinds):
        raise ValueError(f"kinds {tuple(kinds)} repeat a name; expected distinct names")
    alexnet = np.array([ALEXNET_ERRORS[kind] for kind in kinds])
    return float((checked.mean(axis=1) / alexnet).mean())


def _checked(errors: np.ndarray) -> np.ndarray:
    errors = np.asarray(errors, np.float64)
    if errors.ndim != 2 or not errors.size:
        raise ValueError(f"errors have shape {errors.shape}; expected (kinds, severities)")
    outside = errors[~((errors >= 0) & (errors <= 1))]
    if outside.size:
        raise ValueError(f"errors contain {outside[0]}; expected fractions from 0 to 1")
    return errors
