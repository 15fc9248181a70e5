"""Shear, translation, rotation and general affine maps of images, as in Pillow's `transform`.

All take float32[N, H, W, 3] with integral values in [0, 255] and return images of the same kind. A
map sends the centre of an output pixel to the place in the input whose value it takes. As in
Pillow, interpolation is bicubic with a = -1 (not -1/2, which is that of Pillow's `resize`) and
rounds down; translation takes the nearest pixel.

Outside of the image, ``"reflect"`` mirrors it about the centres of its border pixels, without
limit; it equals reflection padding by 31 pixels, transformation and cropping (Molchanov et al.
2020) as long as no place is further than 31 pixels outside, which holds for images of 32 x 32
pixels and magnitudes up to 55. ``"black"`` makes pixels black whose place is outside.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.data.augmentations.colour_operations import Images, Values

Outside = Literal["reflect", "black"]
"""Treatment of places outside of the image."""
Matrices = Float[Array, "N 2 3"]
"""Affine maps: (x, y) of the output in pixels -> (x, y) of the input, A·(x, y, 1)."""

_TAPS = range(-1, 3)
# Added before rounding down, so that results meant to be integral survive float32.
_ROUNDING = 1e-3


def shear_x(images: Images, shear: Values, bottom: Bool[Array, "N"], *, outside: Outside) -> Images:
    """Shifts rows horizontally, in proportion to their distance from the top or bottom border.

    Args:
        images: float32[N, H, W, 3].
        shear: float32[N], shift in pixels per row; its sign is the direction.
        bottom: bool[N], whether the bottom border stays in place instead of the top border.
        outside: treatment of places outside of the image.
    """
    _, height, width, _ = images.shape
    shift, fraction = _split(_shear_shifts(height, shear, bottom))
    columns = jnp.arange(width)[None, None] + shift[:, :, None]
    rows = jnp.arange(height)[None, :, None]
    weights = _bicubic_weights(fraction)[..., None, None]
    mixed = jnp.zeros_like(images)
    for i, t in enumerate(_TAPS):
        taken = take_pixels(images, rows, _inside(columns + t, width, outside))
        mixed = mixed + weights[i] * taken
    places = columns + fraction[:, :, None]
    return _finish(mixed, places, width, outside)


def shear_y(images: Images, shear: Values, right: Bool[Array, "N"], *, outside: Outside) -> Images:
    """Shifts columns vertically, in proportion to their distance from the left or right border.

    Args:
        images: float32[N, H, W, 3].
        shear: float32[N], shift in pixels per column; its sign is the direction.
        right: bool[N], whether the right border stays in place instead of the left border.
        outside: treatment of places outside of the image.
    """
    _, height, width, _ = images.shape
    shift, fraction = _split(_shear_shifts(width, shear, right))
    rows = jnp.arange(height)[None, :, None] + shift[:, None, :]
    columns = jnp.arange(width)[None, None]
    weights = _bicubic_weights(fraction)[:, :, None, :, None]
    mixed = jnp.zeros_like(images)
    for i, t in enumerate(_TAPS):
        taken = take_pixels(images, _inside(rows + t, height, outside), columns)
        mixed = mixed + weights[i] * taken
    places = rows + fraction[:, None, :]
    return _finish(mixed, places, height, outside)


def translate_x(images: Images, shift: Values, *, outside: Outside) -> Images:
    """Shifts images horizontally by ⌊shift + 1/2⌋ pixels, as Pillow does for a fraction.

    Args:
        images: float32[N, H, W, 3].
        shift: float32[N], in pixels; positive values shift to the left.
        outside: treatment of places outside of the image.
    """
    _, height, width, _ = images.shape
    columns = jnp.arange(width)[None, None] + nearest_shift(shift)[:, None, None]
    rows = jnp.arange(height)[None, :, None]
    source = take_pixels(images, rows, _inside(columns, width, outside))
    return _blacken(source, columns, width, outside)


def translate_y(images: Images, shift: Values, *, outside: Outside) -> Images:
    """Shifts images vertically by ⌊shift + 1/2⌋ pixels; positive values shift up."""
    n, height, width, channels = images.shape
    rows = jnp.arange(height)[None] + nearest_shift(shift)[:, None]
    # Whole rows at a time.
    source = jnp.take_along_axis(
        images.reshape(n, height, width * channels),
        _inside(rows, height, outside)[:, :, None],
        axis=1,
        mode="promise_in_bounds",
    ).reshape(images.shape)
    return _blacken(source, rows[:, :, None], height, outside)


def nearest_shift(shift: Values) -> Int[Array, "N"]:
    """Returns ⌊shift + 1/2⌋, the number of pixels by which Pillow translates."""
    return jnp.floor(shift + 0.5).astype(jnp.int32)


def rotate(images: Images, degrees: Values, *, outside: Outside) -> Images:
    """Rotates images counter-clockwise about their centres (`Image.rotate`, bicubic)."""
    return affine(images, rotation_matrices(degrees, *images.shape[1:3]), outside=outside)


def shear_matrices(
    shear: Values, far: Bool[Array, "N"], height: int, width: int, *, axis: Literal["x", "y"]
) -> Matrices:
    """Returns the affine maps of `shear_x` or `shear_y`.

    Args:
        shear: float32[N].
        far: bool[N], whether the bottom or right border stays in place.
        height: height of the images.
        width: width of the images.
        axis: direction of the shift.
    """
    one, zero = jnp.ones_like(shear), jnp.zeros_like(shear)
    slope = jnp.where(far, -shear, shear)
    if axis == "x":
        return _matrices(one, slope, jnp.where(far, shear * height, 0.0), zero, one, zero)
    return _matrices(one, zero, zero, slope, one, jnp.where(far, shear * width, 0.0))


def translation_matrices(shift: Values, *, axis: Literal["x", "y"]) -> Matrices:
    """Returns the affine maps of `translate_x` or `translate_y`, by whole pixels."""
    one, zero = jnp.ones_like(shift), jnp.zeros_like(shift)
    pixels = nearest_shift(shift).astype(shift.dtype)
    x, y = (pixels, zero) if axis == "x" else (zero, pixels)
    return _matrices(one, zero, x, zero, one, y)


def rotation_matrices(degrees: Values, height: int, width: int) -> Matrices:
    """Returns the affine maps of `rotate`."""
    angle = jnp.deg2rad(degrees)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    return _matrices(
        cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y
    )


def affine(images: Images, matrices: Matrices, *, outside: Outside) -> Images:
    """Maps images affinely with bicubic interpolation (`Image.transform`).

    Args:
        images: float32[N, H, W, 3].
        matrices: float32[N, 2, 3], maps of pixel places from output to input, one per image.
        outside: treatment of places outside of the image.

    Returns:
        float32[N, H, W, 3].
    """
    _, height, width, _ = images.shape
    x = (jnp.arange(width, dtype=jnp.float32) + 0.5)[None, None]
    y = (jnp.arange(height, dtype=jnp.float32) + 0.5)[None, :, None]
    a = matrices[:, :, :, None, None]
    column_places = a[:, 0, 0] * x + a[:, 0, 1] * y + a[:, 0, 2] - 0.5
    row_places = a[:, 1, 0] * x + a[:, 1, 1] * y + a[:, 1, 2] - 0.5
    column, column_fraction = _split(column_places)
    row, row_fraction = _split(row_places)
    columns = [_inside(column + t, width, outside) for t in _TAPS]
    rows = [_inside(row + t, height, outside) for t in _TAPS]
    column_weights = _bicubic_weights(column_fraction)[..., None]
    row_weights = _bicubic_weights(row_fraction)[..., None]
    mixed = jnp.zeros_like(images)
    for i in range(4):
        in_row = sum(column_weights[j] * take_pixels(images, rows[i], columns[j]) for j in range(4))
        mixed = mixed + row_weights[i] * in_row
    result = _finish(mixed, column_places, width, outside)
    return _blacken(result, jnp.floor(row_places + 0.5), height, outside)


def take_pixels(images: Images, rows: Array, columns: Array) -> Float[Array, "N R Q 3"]:
    """Gathers whole pixels.

    Args:
        images: float32[N, H, W, 3].
        rows: int[N or 1, R, Q or 1], in [0, H).
        columns: int[N or 1, R or 1, Q], in [0, W).
    """
    n, height, width, channels = images.shape
    first = jnp.arange(n)[:, None, None] * (height * width)
    pixels = images.reshape(n * height * width, channels)
    return pixels.at[first + rows * width + columns].get(mode="promise_in_bounds")


def _shear_shifts(side: int, shear: Values, far: Bool[Array, "N"]) -> Float[Array, "N S"]:
    distance = (jnp.arange(side, dtype=jnp.float32) + 0.5)[None]
    return shear[:, None] * jnp.where(far[:, None], distance[:, ::-1], distance)


def _split(places: Array) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Splits places into whole pixels and fractions in [0, 1)."""
    # A compiler that computes a place twice, once with fused multiply-adds, may find it on both
    # sides of an integer; pixels and weights then belong to different places.
    places = lax.optimization_barrier(places)
    whole = jnp.floor(places)
    return whole.astype(jnp.int32), places - whole


def _bicubic_weights(d: Array) -> Float[Array, "4 ..."]:
    """Weights of the pixels at -1, 0, 1 and 2 for a place at d in [0, 1)."""
    return jnp.stack(
        [
            -d * (1 - d) ** 2,
            1 - 2 * d**2 + d**3,
            d + d**2 - d**3,
            -(d**2) * (1 - d),
        ]
    )


def _inside(index: Array, side: int, outside: Outside) -> Int[Array, "..."]:
    """Moves indices into [0, side): mirrored, or to the nearest border."""
    if outside == "black":
        return jnp.clip(index, 0, side - 1)
    if side == 1:
        return jnp.zeros_like(index)
    period = 2 * (side - 1)
    folded = jnp.mod(index, period)
    return jnp.minimum(folded, period - folded)


def _finish(mixed: Array, places: Array, side: int, outside: Outside) -> Images:
    levels = jnp.floor(jnp.clip(mixed + _ROUNDING, 0.0, 255.0))
    return _blacken(levels, jnp.floor(places + 0.5), side, outside)


def _blacken(images: Images, index: Array, side: int, outside: Outside) -> Images:
    """Makes pixels black whose nearest pixel of the input is outside of it, along one axis."""
    if outside == "reflect":
        return images
    return jnp.where(((index >= 0) & (index < side))[..., None], images, 0.0)


def _matrices(*entries: Values) -> Matrices:
    return jnp.stack(entries, axis=-1).reshape(-1, 2, 3)
