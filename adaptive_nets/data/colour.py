"""Random colour distortion of photographs on the device.

The "full" distortion of TF-Slim's Inception preprocessing, which the authors of figurnov2017 use:
brightness, saturation, hue and contrast change by random amounts, in one of four orders.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Images = Float[Array, "N H W 3"]
Amounts = Float[Array, "N"]

BRIGHTNESS = 32 / 255
"""Largest added value."""
FACTORS = (0.5, 1.5)
"""Range of the factors of saturation and contrast."""
HUE = 0.2
"""Largest rotation of the hue, in turns."""

_CHANNELS = (-1,)
_PIXELS = (1, 2)


def adjust_brightness(images: Images, delta: Amounts) -> Images:
    """Adds delta to every value."""
    return images + _per_image(images, delta)


def adjust_contrast(images: Images, factor: Amounts) -> Images:
    """Scales the deviation from the mean of each channel."""
    mean = jnp.mean(images, axis=_PIXELS, keepdims=True)
    return (images - mean) * _per_image(images, factor) + mean


def adjust_saturation(images: Images, factor: Amounts) -> Images:
    """Scales the saturation of HSV, limited to 1; values are clipped to [0, 1] first."""
    images = jnp.clip(images, 0.0, 1.0)
    value, saturation = _value_and_saturation(images)
    scaled = jnp.minimum(saturation * _per_image(saturation, factor), 1.0)
    ratio = scaled / jnp.where(saturation > 0, saturation, 1.0)
    return value - (value - images) * ratio


def adjust_hue(images: Images, turns: Amounts) -> Images:
    """Rotates the hue of HSV; values are clipped to [0, 1] first.

    Args:
        images: float[N, H, W, 3].
        turns: float[N], full turns.
    """
    images = jnp.clip(images, 0.0, 1.0)
    value, saturation = _value_and_saturation(images)
    red, green, blue = (images[..., c : c + 1] for c in range(3))
    spread = value * saturation
    safe = jnp.where(spread > 0, spread, 1.0)
    # Position on the colour wheel, in sixths of a turn.
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    sixths = sixths + 6.0 * _per_image(images, turns)
    places = (sixths + jnp.array([5.0, 3.0, 1.0]).reshape(1, 1, 1, 3)) % 6.0
    return value - spread * jnp.clip(jnp.minimum(places, 4.0 - places), 0.0, 1.0)


_OPERATIONS = (adjust_brightness, adjust_saturation, adjust_hue, adjust_contrast)
# Order in which an image undergoes the operations.
_ORDERS = ((0, 1, 2, 3), (1, 0, 3, 2), (3, 2, 0, 1), (2, 1, 3, 0))


def distort_colours(key: PRNGKeyArray, images: Images) -> Images:
    """Distorts the colours of each image independently.

    Args:
        key: PRNG key.
        images: float[N, H, W, 3] in [0, 1].

    Returns:
        float[N, H, W, 3] in [0, 1].
    """
    count = images.shape[0]
    keys = jax.random.split(key, 5)
    order = jax.random.randint(keys[4], (count,), 0, len(_ORDERS))
    ranges = ((-BRIGHTNESS, BRIGHTNESS), FACTORS, (-HUE, HUE), FACTORS)
    amounts = [
        jax.random.uniform(k, (count,), images.dtype, *limits)
        for k, limits in zip(keys[:4], ranges, strict=True)
    ]
    return apply_in_order(images, amounts, order)


def apply_in_order(images: Images, amounts: list[Amounts], order: Array) -> Images:
    """Applies brightness, saturation, hue and contrast in the order of each image, then clips.

    Args:
        images: float[N, H, W, 3] in [0, 1].
        amounts: float[N] for each operation.
        order: int[N], index of the order.
    """
    # Every operation runs at each place and one is selected: a few element-wise passes.
    for place in range(len(_OPERATIONS)):
        chosen = jnp.array([o[place] for o in _ORDERS])[order]
        changed = images
        for i, operation in enumerate(_OPERATIONS):
            selected = (chosen == i)[:, None, None, None]
            changed = jnp.where(selected, operation(images, amounts[i]), changed)
        images = changed
    return jnp.clip(images, 0.0, 1.0)


def _value_and_saturation(images: Images) -> tuple[Array, Array]:
    """Returns value and saturation of HSV, float[N, H, W, 1] each."""
    value = jnp.max(images, axis=_CHANNELS, keepdims=True)
    spread = value - jnp.min(images, axis=_CHANNELS, keepdims=True)
    return value, spread / jnp.where(value > 0, value, 1.0)


def _per_image(images: Array, amounts: Amounts) -> Float[Array, "N 1 1 1"]:
    return amounts.astype(images.dtype)[:, None, None, None]
