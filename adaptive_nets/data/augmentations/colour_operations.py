"""Operations on the colours of images: thresholds, bits, blends and histograms.

All take float32[N, H, W, 3] with integral values in [0, 255] and one value per image, float32[N],
and return images of the same kind. Each equals the Pillow function that it names; enhancements and
`auto_contrast` may differ by one level where a result before rounding down is an integer up to
rounding errors.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Images = Float[Array, "N H W 3"]
Values = Float[Array, "N"]

LEVELS = 256
"""Number of values of a uint8 pixel."""
# Added before rounding down, so that results meant to be integral survive float32.
_ROUNDING = 2.0**-14
# Luma weights of ITU-R 601-2 in units of 2^-16, as in Pillow's conversion to mode "L".
_LUMA = np.array([19595.0, 38470.0, 7471.0], np.float32)


def solarize(images: Images, threshold: Values) -> Images:
    """Inverts values at or above a threshold (`ImageOps.solarize`).

    Args:
        images: float32[N, H, W, 3].
        threshold: float32[N], need not be integral.
    """
    return jnp.where(images < per_image(threshold), images, 255.0 - images)


def solarize_add(images: Images, threshold: Values) -> Images:
    """Blends images half and half with their solarized copies (`Image.blend`).

    Values at or above the threshold become ⌊(x + 255 - x)/2⌋ = 127; others stay.
    """
    return jnp.where(images < per_image(threshold), images, 127.0)


def posterize(images: Images, bits: Values) -> Images:
    """Keeps the highest bits of each value (`ImageOps.posterize`).

    Args:
        images: float32[N, H, W, 3].
        bits: float32[N], truncated to an integer. Zero or fewer bits give a black image, as in the
            Pillow of the paper's time; Pillow 13 refuses them.
    """
    step = jnp.exp2(8.0 - jnp.clip(jnp.trunc(bits), 0.0, 8.0))
    # `exp2` is approximate on some platforms; steps are powers of two.
    step = per_image(jnp.round(step))
    return jnp.floor(images / step) * step


def invert(images: Images) -> Images:
    """Inverts all values (`ImageOps.invert`)."""
    return 255.0 - images


def contrast(images: Images, change: Values) -> Images:
    """Scales the deviation from the mean grey level by 1 + change (`ImageEnhance.Contrast`)."""
    return enhance(images, mean_grey(images), change)


def color(images: Images, change: Values) -> Images:
    """Scales the deviation from the grey image by 1 + change (`ImageEnhance.Color`)."""
    return enhance(images, grey(images), change)


def brightness(images: Images, change: Values) -> Images:
    """Scales all values by 1 + change (`ImageEnhance.Brightness`)."""
    return enhance(images, jnp.zeros((1, 1, 1, 1), images.dtype), change)


def sharpness(images: Images, change: Values) -> Images:
    """Scales the deviation from the smoothed image by 1 + change (`ImageEnhance.Sharpness`)."""
    return enhance(images, smooth(images), change)


def enhance(images: Images, degenerate: Array, change: Values) -> Images:
    """Computes ⌊degenerate + (1 + change)·(images - degenerate)⌋ in [0, 255] (`Image.blend`).

    Args:
        images: float32[N, H, W, 3].
        degenerate: float32[N or 1, H or 1, W or 1, 3 or 1], the image at factor 0.
        change: float32[N].
    """
    blended = degenerate + per_image(1.0 + change) * (images - degenerate)
    return jnp.floor(jnp.clip(blended + _ROUNDING, 0.0, 255.0))


def grey(images: Images) -> Float[Array, "N H W 1"]:
    """Returns Pillow's grey levels (mode "L"), equal to `Image.convert`."""
    # Integers below 2^24 are exact in float32, in any order of summation. A matrix product is an
    # order of magnitude faster on CPU than slices of the three channels.
    luma = jnp.matmul(images, jnp.asarray(_LUMA)[:, None], precision=lax.Precision.HIGHEST)
    return jnp.floor((luma + 32768.0) / 65536.0)


def mean_grey(images: Images) -> Float[Array, "N 1 1 1"]:
    """Returns the mean grey level of each image, rounded half up as in `ImageEnhance.Contrast`."""
    pixels = images.shape[1] * images.shape[2]
    total = jnp.sum(grey(images)[..., 0].astype(jnp.int32), axis=(1, 2))
    return per_image(((2 * total + pixels) // (2 * pixels)).astype(images.dtype))


def smooth(images: Images) -> Images:
    """Applies Pillow's `ImageFilter.SMOOTH`: a 3x3 mean with centre weight 5/13; keeps the border.

    Images narrower than 3 pixels are all border.
    """
    height, width = images.shape[1:3]
    if min(height, width) < 3:
        return images
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = jnp.floor((box + 4.0 * images[:, 1:-1, 1:-1]) / 13.0 + 0.5)
    return lax.dynamic_update_slice(images, inner, (0, 1, 1, 0))


def auto_contrast(images: Images, cutoff: Values) -> Images:
    """Stretches each channel to [0, 255] (`ImageOps.autocontrast`).

    With n pixels and k = ⌊n·cutoff/100⌋, the k darkest and k brightest values of each channel are
    ignored; of the others, the darkest becomes 0 and the brightest 255. A channel of a single value
    stays. Where (x - low)·255/(high - low) is integral, Pillow's float64 product may round down to
    the level below.

    Args:
        images: float32[N, H, W, 3].
        cutoff: float32[N], percentage in [0, 50).
    """
    pixels = images.shape[1] * images.shape[2]
    cut = jnp.floor(pixels * cutoff / 100.0)[:, None, None]
    below = jnp.cumsum(histograms(images), axis=-1)
    low = jnp.sum((below <= cut).astype(images.dtype), axis=-1)
    high = jnp.sum((below < pixels - cut).astype(images.dtype), axis=-1)
    low, spread = low[:, None, None, :], (high - low)[:, None, None, :]
    inside = jnp.clip(images - low, 0.0, jnp.maximum(spread, 0.0))
    # Quotients are multiples of 1/spread; half a multiple guards the floor against rounding.
    stretched = jnp.floor((255.0 * inside + 0.5) / jnp.maximum(spread, 1.0))
    return jnp.where(spread > 0, stretched, images)


def equalize(images: Images) -> Images:
    """Equalizes the histogram of each channel (`ImageOps.equalize`).

    A value v becomes ⌊(⌊step/2⌋ + count(x < v))/step⌋, at most 255, where step is a 255th of the
    number of pixels below the brightest value. A channel whose step is zero stays.
    """
    n, height, width, channels = images.shape
    counts = histograms(images).astype(jnp.int32)
    up_to = jnp.cumsum(counts, axis=-1)
    # Pixels below the brightest value: the largest count that is not yet all pixels.
    step = jnp.max(jnp.where(up_to < height * width, up_to, 0), axis=-1, keepdims=True) // 255
    table = jnp.minimum((step // 2 + up_to - counts) // jnp.maximum(step, 1), LEVELS - 1)
    table = jnp.where(step > 0, table, jnp.arange(LEVELS, dtype=jnp.int32)[None, None])
    values = images.reshape(n, height * width, channels).astype(jnp.int32)
    looked_up = jnp.take_along_axis(
        jnp.swapaxes(table, 1, 2), values, axis=1, mode="promise_in_bounds"
    )
    return looked_up.reshape(images.shape).astype(images.dtype)


def histograms(images: Images) -> Float[Array, "N 3 256"]:
    """Counts the pixels of each value, for each image and channel."""
    n, height, width, channels = images.shape
    values = images.reshape(n, height * width, channels).astype(jnp.int32)
    series = jnp.arange(n, dtype=jnp.int32)[:, None, None] * channels
    series = series + jnp.arange(channels, dtype=jnp.int32)[None, None]
    places = (LEVELS * series + values).reshape(-1)
    counts = jnp.zeros(n * channels * LEVELS, images.dtype)
    counts = counts.at[places].add(1.0, mode="promise_in_bounds")
    return counts.reshape(n, channels, LEVELS)


def per_image(values: Values) -> Float[Array, "N 1 1 1"]:
    """Adds the axes of pixels and channels to one value per image."""
    return values[:, None, None, None]
