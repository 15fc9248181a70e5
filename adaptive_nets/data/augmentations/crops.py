"""Random crops and black squares: crop and flip, resized crop, cutout.

All take float32[N, H, W, 3] with integral values in [0, 255], draw their random parts per image
from a key, and return images of the same shape.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from adaptive_nets.data.augmentations.colour_operations import Images, Values, per_image

CROP_PADDING = 4
"""Black pixels on each side before CIFAR's random crop."""
ATTEMPTS = 10
"""Regions drawn for a resized crop until one fits."""
AREA_RANGE = 0.01
"""Width of the range of areas of a resized crop, as a fraction of the image."""
ASPECT_RATIOS = (3 / 4, 4 / 3)
"""Range of width/height of a resized crop."""


def crop_and_flip(key: PRNGKeyArray, images: Images, *, padding: int = CROP_PADDING) -> Images:
    """Pads with black, crops to the original size at random and flips half of the images.

    Args:
        key: PRNG key.
        images: float32[N, H, W, 3].
        padding: black pixels on each side.

    Returns:
        float32[N, H, W, 3].
    """
    n, height, width, channels = images.shape
    crop_key, flip_key = jax.random.split(key)
    sides = (padding, padding)
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)))
    corners = jax.random.randint(crop_key, (n, 2), 0, 2 * padding + 1)

    def crop(image: Array, corner: Array) -> Array:
        start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
        return lax.dynamic_slice(image, start, (height, width, channels))

    return random_flip(flip_key, jax.vmap(crop)(padded, corners))


def random_flip(key: PRNGKeyArray, images: Images) -> Images:
    """Mirrors each image left to right with probability 1/2."""
    mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def cutout(images: Images, side: Values, centres: Float[Array, "N 2"]) -> Images:
    """Blackens a square of each image.

    As in the code of Molchanov et al. 2020, the square starts at ⌊max(0, centre - s/2)⌋ along each
    axis, where s is its side in pixels, and `ImageDraw.rectangle` includes the pixel at start + s,
    so it covers ⌊s⌋ + 1 pixels. It is cut off at the borders of the image. Images whose side is
    zero stay.

    Args:
        images: float32[N, H, W, 3].
        side: float32[N], fraction of the width.
        centres: float32[N, 2], row and column in pixels.
    """
    _, height, width, _ = images.shape
    length = (side * width)[:, None]
    first = jnp.floor(jnp.maximum(centres - length / 2, 0.0))
    last = first + length
    rows = jnp.arange(height, dtype=jnp.float32)[None]
    columns = jnp.arange(width, dtype=jnp.float32)[None]
    in_rows = (rows >= first[:, :1]) & (rows <= last[:, :1])
    in_columns = (columns >= first[:, 1:]) & (columns <= last[:, 1:])
    black = in_rows[:, :, None, None] & in_columns[:, None, :, None] & per_image(side > 0)
    return jnp.where(black, 0.0, images)


def cutout_centres(key: PRNGKeyArray, images: Images) -> Float[Array, "N 2"]:
    """Draws row and column of the centres of squares, uniform in [1, H) x [1, W).

    The lower limit 1 instead of 0 is that of the code of Molchanov et al. 2020.
    """
    n, height, width, _ = images.shape
    sides = jnp.array([[height, width]], jnp.float32)
    return 1.0 + jax.random.uniform(key, (n, 2), jnp.float32) * (sides - 1.0)


class Regions(NamedTuple):
    """Rectangles of images, in pixels; int32[N] each."""

    top: Int[Array, "N"]
    left: Int[Array, "N"]
    height: Int[Array, "N"]
    width: Int[Array, "N"]


def random_resized_crop(key: PRNGKeyArray, images: Images, area: Values) -> Images:
    """Crops a random region, resizes it to the size of the image and flips at random.

    Args:
        key: PRNG key.
        images: float32[N, H, W, 3].
        area: float32[N], fraction of the image; the region's is uniform in [area, area + 0.01].
            As in the code of Molchanov et al. 2020, a negative area counts as its absolute value.
    """
    region_key, flip_key = jax.random.split(key)
    regions = random_regions(region_key, jnp.abs(area), *images.shape[1:3])
    return random_flip(flip_key, resized_crop(images, regions))


def random_regions(key: PRNGKeyArray, area: Values, height: int, width: int) -> Regions:
    """Draws regions of given area, with log-uniform aspect ratio in [3/4, 4/3].

    As in torchvision, the first of ten drawn sizes that fits is taken; if none does, the largest
    central region whose aspect ratio is in the range. Sides are at least one pixel.

    Args:
        key: PRNG key.
        area: float32[N], smallest fraction of the image; the largest is 0.01 more.
        height: height of the images.
        width: width of the images.
    """
    n = area.shape[0]
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    shape = (n, ATTEMPTS)
    drawn = area[:, None] + AREA_RANGE * jax.random.uniform(area_key, shape, jnp.float32)
    target = drawn * (height * width)
    low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    ratio = jnp.exp(jax.random.uniform(ratio_key, shape, jnp.float32, low, high))
    widths = jnp.maximum(jnp.round(jnp.sqrt(target * ratio)), 1.0)
    heights = jnp.maximum(jnp.round(jnp.sqrt(target / ratio)), 1.0)
    fits = (widths <= width) & (heights <= height)
    chosen, any_fits = jnp.argmax(fits, axis=1)[:, None], jnp.any(fits, axis=1)
    central_height = min(height, round(width / ASPECT_RATIOS[0]))
    central_width = min(width, round(height * ASPECT_RATIOS[1]))

    def first_fit(sizes: Array, central: int) -> Array:
        return jnp.where(any_fits, jnp.take_along_axis(sizes, chosen, axis=1)[:, 0], central)

    h, w = first_fit(heights, central_height), first_fit(widths, central_width)
    places = jax.random.uniform(place_key, (n, 2), jnp.float32)
    tops = jnp.minimum(jnp.floor(places[:, 0] * (height - h + 1)), height - h)
    lefts = jnp.minimum(jnp.floor(places[:, 1] * (width - w + 1)), width - w)
    tops = jnp.where(any_fits, tops, (height - central_height) // 2)
    lefts = jnp.where(any_fits, lefts, (width - central_width) // 2)
    return Regions(*(side.astype(jnp.int32) for side in (tops, lefts, h, w)))


def resized_crop(images: Images, regions: Regions) -> Images:
    """Resizes regions to the size of the image, as Pillow's `resize` with `BICUBIC` does.

    Rows are resampled before columns, with a = -1/2 and, where a region is larger than the result,
    a wider kernel; each pass rounds to the nearest level. Pillow's weights are fixed-point numbers
    of 22 bits, so results may differ by one level.
    """
    _, height, width, _ = images.shape
    columns = _resize_weights(regions.left, regions.width, width)
    rows = _resize_weights(regions.top, regions.height, height)
    exact = lax.Precision.HIGHEST
    images = _round(jnp.einsum("nxw,nhwc->nhxc", columns, images, precision=exact))
    return _round(jnp.einsum("nyh,nhxc->nyxc", rows, images, precision=exact))


def _resize_weights(first: Array, length: Array, side: int) -> Float[Array, "N S S"]:
    """Weights of the input pixels (last axis) of one side for each output pixel."""
    start = first.astype(jnp.float32)[:, None, None]
    end = start + length.astype(jnp.float32)[:, None, None]
    scale = (end - start) / side
    stretch = jnp.maximum(scale, 1.0)
    centres = start + (jnp.arange(side, dtype=jnp.float32)[None, :, None] + 0.5) * scale
    pixels = jnp.arange(side, dtype=jnp.float32)[None, None]
    weights = _bicubic((pixels + 0.5 - centres) / stretch)
    weights = jnp.where((pixels >= start) & (pixels < end), weights, 0.0)
    return weights / jnp.sum(weights, axis=2, keepdims=True)


def _bicubic(t: Array) -> Array:
    t = jnp.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    return jnp.where(t < 1, near, jnp.where(t < 2, far, 0.0))


def _round(values: Array) -> Array:
    return jnp.floor(jnp.clip(values, 0.0, 255.0) + 0.5)
