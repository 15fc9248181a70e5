"""Convolution with a single output channel near the active positions of a run-time mask.

Gathering 3x3 windows for one output channel would read every position nine times. Instead, each
position is multiplied by all taps in one product over its channels, and the nine resulting maps are
shifted and added: every position is read once. Each map is contiguous, so that shifts are quick.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels._common.arrays import as_arrays, vary_alike, vary_over, varying_axes
from kernels._common.geometry import is_empty
from kernels._common.rows import accumulator
from kernels.masked_conv.active import (
    fold_over_all_positions,
    fold_over_pieces,
    list_active,
    piece_sizes,
    take_rows,
)
from kernels.masked_unit.chain import dilate

# If a larger share of positions is to be read, all are read and no list is made.
_DENSE_THRESHOLD = 0.7
# With fewer channels, a loop over pieces costs more than it saves, and does not use all cores.
_CHANNELS_OF_PIECES = 128


def logit_map(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW C"],
    mask: Bool[Array, "N H W"],
    *,
    before: Callable[[Float[Array, "B C"]], Float[Array, "B C"]] | None = None,
    tap_biases: Float[Array, "KH KW"] | None = None,
) -> Float[Array, "N H W"]:
    """Convolves ``before(x)`` to one output channel, stride 1, padding SAME.

    Args:
        x: float[N, H, W, C].
        w: float[KH, KW, C], odd windows.
        mask: bool[N, H, W], positions where the result is needed.
        before: function of each position on its own, a normalisation for instance; padding is zero
            after it.
        tap_biases: float[KH, KW], added to each tap's product on the map, not to padding.

    Returns:
        float32[N, H, W]; undefined where the mask is False.
    """
    x, w, mask, tap_biases = vary_alike(*as_arrays(x=x, w=w, mask=mask), tap_biases)
    n, height, width, channels = x.shape
    if is_empty(*mask.shape):
        return jnp.zeros(mask.shape, accumulator(w.dtype))
    window = (w.shape[0], w.shape[1])
    taps = w.reshape(-1, channels)
    pixels = x.reshape(-1, channels)
    needed = dilate(mask, window)

    def product(rows: Array) -> Array:
        rows = rows if before is None else before(rows)
        return jnp.dot(taps, rows.astype(w.dtype).T, preferred_element_type=accumulator(w.dtype))

    sizes = piece_sizes(channels, element_bytes=x.dtype.itemsize)
    positions = n * height * width

    def empty(*shape: int) -> Array:
        return vary_over(varying_axes(pixels), jnp.zeros(shape, accumulator(w.dtype)))

    def dense() -> Array:
        if channels < _CHANNELS_OF_PIECES:
            return product(pixels)

        # In pieces, which stay in cache between the normalisation and the product.
        def piece(start, size, out):
            y = product(lax.dynamic_slice_in_dim(pixels, start, size))
            return lax.dynamic_update_slice_in_dim(out, y, start, 1)

        return fold_over_all_positions(positions, sizes[0], piece, empty(len(taps), positions))

    def sparse() -> Array:
        active = list_active(needed)

        def piece(start, size, out):
            rows, valid = take_rows(active, start, size)
            y = product(pixels.at[rows].get(mode="promise_in_bounds"))
            places = jnp.where(valid, rows, jnp.asarray(positions, jnp.int32))
            return out.at[places].set(y.T, mode="drop", unique_indices=True)

        return fold_over_pieces(active.count, sizes, piece, empty(positions, len(taps))).T

    share = _DENSE_THRESHOLD * jnp.asarray(needed.size, jnp.float32)
    many = jnp.sum(needed, dtype=jnp.int32) > share
    products = lax.cond(many, dense, sparse)
    if tap_biases is not None:
        products = products + tap_biases.reshape(-1, 1).astype(products.dtype)
    products = products.reshape(len(taps), n, height, width)
    pads = [(k // 2, k // 2) for k in window]
    padded = jnp.pad(products, ((0, 0), (0, 0), *pads))
    result = jnp.zeros((n, height, width), products.dtype)
    for tap in range(len(taps)):
        row, column = divmod(tap, window[1])
        result += padded[tap, :, row : row + height, column : column + width]
    return result
