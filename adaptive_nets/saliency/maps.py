"""Saliency maps: blurred ponder maps, the centre bias, and changes of size and scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy import ndimage

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.saliency.arguments import as_map, as_number, as_size

CENTRE_WIDTH = 0.25
"""Standard deviations of the centre bias, as a share of the height and of the width.

The paper does not print them. A Gaussian that is stretched to the image's sides is the centre
baseline of the MIT saliency benchmark; its rank statistics do not depend on the share."""


def unit_scaled(values: Float[Any, "H W"]) -> Float64[np.ndarray, "H W"]:
    """Scales a map linearly to [0, 1]; a constant map becomes 0.

    Args:
        values: float[H, W], finite.

    Raises:
        UserError: the map has another shape or numbers that are not finite.
    """
    array = as_map("values", values)
    # Halved, so that the difference of the largest numbers of both signs is finite.
    array = array / 2 - array.min() / 2
    largest = array.max()
    return array / largest if largest > 0 else array


def centre_baseline(
    shape: tuple[int, int], *, width: float = CENTRE_WIDTH
) -> Float64[np.ndarray, "H W"]:
    """Computes a Gaussian at the centre of the image, B(y, x), in (0, 1].

    B = exp(−½(((y − y0) / (width·H))² + ((x − x0) / (width·W))²)), where (y0, x0) is the centre of
    the image [figurnov2017].

    Args:
        shape: (H, W) of the image.
        width: standard deviations as a share of H and of W.

    Raises:
        UserError: `shape` is no size, or `width` is not positive.
    """
    height, columns = as_size(shape)
    width = as_number("width", width, open_low=True)
    y, x = ((np.arange(size) - (size - 1) / 2) / (width * size) for size in (height, columns))
    return np.exp(-0.5 * (y[:, None] ** 2 + x[None] ** 2))


def blurred(values: Float[Any, "H W"], *, sigma: float) -> Float64[np.ndarray, "H W"]:
    """Convolves a map with a Gaussian; the map is mirrored at its edges, so its sum is kept.

    Args:
        values: float[H, W], finite.
        sigma: standard deviation in pixels; 0 leaves the map unchanged.

    Raises:
        UserError: the map is none, or `sigma` is negative.
    """
    array = as_map("values", values)
    sigma = as_number("sigma", sigma)
    if sigma == 0:
        return array
    return ndimage.gaussian_filter(array, sigma, mode="reflect")


def smoothed_map(
    ponder: Float[Any, "H W"],
    *,
    sigma: float,
    centre_weight: float,
    centre_width: float = CENTRE_WIDTH,
) -> Float64[np.ndarray, "H W"]:
    """Computes a saliency map S = norm01(G_σ ∗ C) + λ·B from a ponder map C [figurnov2017].

    Args:
        ponder: float[H, W], ponder cost of each pixel.
        sigma: σ, standard deviation of the blur, pixels; 0 for none.
        centre_weight: λ, weight of the centre bias B, see `centre_baseline`; 0 for none.
        centre_width: standard deviations of B as a share of H and of W.

    Returns:
        float64[H, W], from 0 to 1 + λ. The first term of a constant ponder map is 0.

    Raises:
        UserError: the map is none, or a number is out of range.
    """
    array = as_map("ponder", ponder)
    weight = as_number("centre_weight", centre_weight)
    smooth = unit_scaled(blurred(array, sigma=sigma))
    return smooth + weight * centre_baseline(array.shape, width=centre_width)  # pyright: ignore


def resized(values: Float[Any, "H W"], shape: tuple[int, int]) -> Float64[np.ndarray, "H2 W2"]:
    """Resizes a map by bilinear interpolation between the centres of its pixels.

    Args:
        values: float[H, W], finite.
        shape: (H2, W2) of the result. Pixels are not averaged, so a map that becomes much smaller
            should be blurred first.

    Raises:
        UserError: the map is none, or `shape` is no size.
    """
    array, size = as_map("values", values), as_size(shape)
    for axis, (old, new) in enumerate(zip(array.shape, size, strict=True)):
        if old == new:
            continue
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        lower = place.astype(np.int64)
        upper = np.minimum(lower + 1, old - 1)
        share = (place - lower).reshape((-1, 1) if axis == 0 else (1, -1))
        array = array.take(lower, axis) * (1 - share) + array.take(upper, axis) * share
    return array


def fixation_density(fixations: Bool[Any, "H W"], *, sigma: float) -> Float64[np.ndarray, "H W"]:
    """Computes a density of fixations: the blurred fixation map, of sum 1.

    Args:
        fixations: bool[H, W], or numbers of fixations of each pixel.
        sigma: standard deviation in pixels, customarily that of one degree of visual angle.

    Raises:
        UserError: there is no fixation, or `sigma` is negative.
    """
    array = blurred(as_map("fixations", fixations), sigma=sigma)
    if array.min() < 0 or array.sum() <= 0:
        raise UserError("fixations are 0 everywhere or negative; expected at least one fixation")
    return array / array.sum()
