"""Predictions of a few images at a time on a CPU, whose caches hold their activations."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

PIXEL_BYTES = 600_000
"""Bytes of the pixels of a piece: 48 images of CIFAR, whose widest activations are 3 MB."""
LARGE_IMAGES = 4
"""Images of a piece where a few have more bytes; fewer leave threads without work."""


def in_pieces(
    function: Callable[[Float[Array, "M H W C"]], Float[Array, "M K"]],
    images: Float[Array, "N H W C"],
) -> Float[Array, "N K"]:
    """Applies a function of images to pieces of a batch on a CPU, to the whole batch elsewhere.

    Args:
        function: treats every image by itself.
        images: float[N, H, W, C].

    Returns:
        float[N, K], as `function` gives for the whole batch up to rounding.
    """
    count = len(images)
    most = max(LARGE_IMAGES, PIXEL_BYTES // max(1, images[:1].size * images.dtype.itemsize))
    if jax.default_backend() != "cpu" or count <= most:
        return function(images)
    size = -(-count // -(-count // most))
    # The last piece begins where it is full, so that all have one shape.
    starts = np.minimum(np.arange(0, count, size), count - size)
    found = lax.map(
        lambda start: function(lax.dynamic_slice_in_dim(images, start, size)), jnp.asarray(starts)
    )
    pieces = np.arange(count) // size
    return found[pieces, np.arange(count) - starts[pieces]]
