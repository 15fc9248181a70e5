"""Spatial halting decisions: masks of computed positions, and groups that share one decision."""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from adaptive_nets.halting.arguments import as_array, check_positive_integer
from adaptive_nets.runtime.errors import UserError


def dilate(mask: Bool[Array, "... H W"]) -> Bool[Array, "... H W"]:
    """Dilates a mask by 3x3: the positions that a 3x3 convolution at the mask reads.

    The first convolution of a residual unit computes these for the 3x3 convolution after it
    [figurnov2017].

    Args:
        mask: bool[..., H, W].

    Returns:
        bool[..., H, W].

    Raises:
        UserError: the mask is not bool[..., H, W].
    """
    mask = as_array("mask", mask)
    if mask.ndim < 2 or mask.dtype != jnp.bool_:
        raise UserError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; expected bool[..., H, W]"
        )
    window = (1,) * (mask.ndim - 2) + (3, 3)
    return lax.reduce_window(mask, False, lax.bitwise_or, window, (1,) * mask.ndim, "SAME")


def mask_residual(residual: Float[Array, "N H W C"], mask: Array | None) -> Float[Array, "N H W C"]:
    """Multiplies a unit's residual by its mask: a^l ⊙ f^l in x^l = x^{l−1} + a^l ⊙ f^l(x^{l−1}).

    Args:
        residual: float[N, H, W, C], f^l.
        mask: a^l, [N] per image or [N, H, W] per position, bool or float in [0, 1]; None returns
            the residual unchanged.

    Returns:
        float[N, H, W, C], in the residual's dtype.

    Raises:
        UserError: the mask has another batch size or resolution.
    """
    if mask is None:
        return residual
    residual, values = as_array("residual", residual), as_array("mask", mask)
    if values.shape not in (residual.shape[:1], residual.shape[:3]):
        raise UserError(
            f"halting mask has shape {values.shape}; expected {residual.shape[:3]}, one value per "
            f"position, or {residual.shape[:1]}, one value per image"
        )
    values = jnp.expand_dims(values, tuple(range(values.ndim, 4)))
    if values.dtype == jnp.bool_:
        return jnp.where(values, residual, jnp.zeros((), residual.dtype))
    return residual * values.astype(residual.dtype)


def group_sizes(shape: tuple[int, int], groups: int) -> tuple[int, int]:
    """Returns the numbers of rows and columns of groups on a map: min(g, H) and min(g, W).

    Args:
        shape: (H, W).
        groups: g, maximum number of groups per axis.

    Raises:
        UserError: `groups` is not a positive integer or does not divide an axis.
    """
    groups = check_positive_integer("groups", groups)
    rows, columns = (min(groups, size) for size in shape)
    if shape[0] % rows or shape[1] % columns:
        raise UserError(
            f"groups is {groups}; expected a divisor of both sides of a {shape[0]}x{shape[1]} map"
        )
    return rows, columns


def count_latents(shapes: Iterable[tuple[int, int]], groups: int) -> int:
    """Counts the latent variables of an image: groups of positions, summed over blocks.

    Args:
        shapes: (H, W) of each block's maps.
        groups: g, maximum number of groups per axis.
    """
    return sum(math.prod(group_sizes(shape, groups)) for shape in shapes)


def group_average(x: Float[Array, "N H W C"], groups: int) -> Float[Array, "N G1 G2 C"]:
    """Averages features over each group of neighbouring positions, as input of a halting head.

    Args:
        x: float[N, H, W, C].
        groups: g, maximum number of groups per axis.

    Returns:
        float[N, min(g, H), min(g, W), C].

    Raises:
        UserError: `groups` is not a positive integer or does not divide an axis.
    """
    x = as_array("x", x, ndim=4, axes="[N, H, W, C]")
    n, height, width, channels = x.shape
    rows, columns = group_sizes((height, width), groups)
    tiles = x.reshape(n, rows, height // rows, columns, width // columns, channels)
    return jnp.mean(tiles, axis=(2, 4))


def spread_groups(values: Array, shape: tuple[int, int]) -> Array:
    """Broadcasts each group's value to its positions: nearest upsampling of axes 1 and 2.

    Args:
        values: [N, G1, G2, ...].
        shape: (H, W), multiples of (G1, G2).

    Returns:
        [N, H, W, ...].

    Raises:
        UserError: `shape` is not a multiple of (G1, G2).
    """
    values = as_array("values", values)
    if values.ndim < 3:
        raise UserError(f"values has shape {values.shape}; expected [N, G1, G2, ...]")
    rows, columns = values.shape[1:3]
    if shape[0] % rows or shape[1] % columns:
        raise UserError(f"shape is {tuple(shape)}; expected multiples of ({rows}, {columns})")
    tall = jnp.repeat(values, shape[0] // rows, axis=1)
    return jnp.repeat(tall, shape[1] // columns, axis=2)
