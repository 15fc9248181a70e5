"""Digits at the size that LeNet-5 expects, and random distortions of them (lecun1998)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.data.augmentations.geometry import affine
from adaptive_nets.data.device import Rows
from adaptive_nets.training.task import Batch

# Ranges of the distortions, which the paper names without their sizes.
SHIFT, SCALE, SQUEEZE, SHEAR = 2.0, 0.1, 0.1, 0.2
_WHITE = 255.0


def padded(padding: int) -> Callable[[Batch], Batch]:
    """Returns a function that adds background, pixels of 0, on each side of the images.

    Args:
        padding: pixels on each side.
    """

    def prepare(batch: Batch) -> Batch:
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        return {**batch, "image": jnp.pad(batch["image"], sides)}

    return prepare


def distortions(key: PRNGKeyArray, count: int, side: int) -> Float[Array, "N 2 3"]:
    """Draws affine maps about the centre of square images.

    Each combines a translation, a scaling, a squeeze (one axis shrinks as the other grows) and a
    horizontal shear, all uniform.

    Args:
        key: PRNG key.
        count: number N of maps.
        side: height and width of the images, pixels.

    Returns:
        float32[N, 2, 3], maps (x, y, 1) of the output -> (x, y) of the input, pixels.
    """
    low_high = jnp.array([SCALE, SQUEEZE, SHEAR, SHIFT, SHIFT])
    draws = jax.random.uniform(key, (count, 5), minval=-low_high, maxval=low_high)
    scale, squeeze, shear, right, down = draws.T
    across = (1 + scale) * (1 + squeeze)
    along = (1 + scale) / (1 + squeeze)
    zero, half = jnp.zeros(count), side / 2
    return jnp.stack(
        [
            jnp.stack([across, shear, half - across * half - shear * half + right], axis=-1),
            jnp.stack([zero, along, half - along * half + down], axis=-1),
        ],
        axis=1,
    )


def distort(key: PRNGKeyArray, rows: Rows) -> Rows:
    """Distorts each image by its own map; pixels are in [0, 1] with background 0."""
    images = rows["image"]
    maps = distortions(key, len(images), images.shape[1])
    # The interpolation works on 256 levels.
    pixels = affine(jnp.round(_WHITE * images), maps, outside="black")
    return {**rows, "image": pixels / _WHITE}
