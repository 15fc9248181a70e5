"""Halting decisions on the plane: which positions a unit computes, and groups that share one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from adaptive_nets.runtime.errors import UserError


def dilate(mask: Bool[Array, "... H W"]) -> Bool[Array, "... H W"]:
    """Positions that a 3x3 convolution on the mask reads: 3x3 maximum, stride 1, padding SAME.

    A residual unit's first convolution has to compute these for the ones after it [figurnov2017].

    Args:
        mask: bool[..., H, W].

    Returns:
        bool[..., H, W].

    Raises:
        UserError: the mask is not bool or has fewer than two axes.
    """
    mask = jnp.asarray(mask)
    if mask.ndim < 2 or mask.dtype != jnp.bool_:
        raise UserError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; expected bool[..., H, W]"
        )
    window = (1,) * (mask.ndim - 2) + (3, 3)
    return lax.reduce_window(mask, False, lax.bitwise_or, window, (1,) * mask.ndim, "SAME")


def mask_residual(residual: Float[Array, "N H W C"], mask: Array | None) -> Float[Array, "N H W C"]:
    """Leaves of a unit's residual what its mask lets through: x^l = x^{l−1} + a^l ⊙ f^l(x^{l−1}).

    Args:
        residual: float[N, H, W, C], f^l.
        mask: a^l, [N] per image or [N, H, W] per position, bool or in [0, 1]; None lets all
            through.

    Returns:
        float[N, H, W, C], of the residual's dtype.

    Raises:
        UserError: the mask is of another batch or resolution.
    """
    if mask is None:
        return residual
    if mask.shape not in (residual.shape[:1], residual.shape[:3]):
        raise UserError(
            f"halting mask has shape {mask.shape}; expected {residual.shape[:3]}, one for each "
            f"position, or {residual.shape[:1]}, one for each image"
        )
    mask = jnp.expand_dims(mask, tuple(range(mask.ndim, 4)))
    if mask.dtype == jnp.bool_:
        return jnp.where(mask, residual, jnp.zeros((), residual.dtype))
    return residual * mask.astype(residual.dtype)


def group_sizes(shape: tuple[int, int], groups: int) -> tuple[int, int]:
    """Rows and columns of latent variables on a map: min(g, H) and min(g, W).

    Args:
        shape: (H, W).
        groups: g, the largest number of groups per axis.

    Raises:
        UserError: `groups` is not positive, or an axis does not divide into its groups.
    """
    if int(groups) != groups or groups < 1:
        raise UserError(f"groups is {groups!r}; expected a positive integer")
    rows, columns = (min(int(groups), size) for size in shape)
    if shape[0] % rows or shape[1] % columns:
        raise UserError(
            f"groups is {groups}; expected a divisor of both sides of a {shape[0]}x{shape[1]} map"
        )
    return rows, columns


def count_latents(shapes: Iterable[tuple[int, int]], groups: int) -> int:
    """Latent variables of an image: over blocks, the number of groups of positions.

    Args:
        shapes: (H, W) of each block's maps.
        groups: g, the largest number of groups per axis.
    """
    return sum(math.prod(group_sizes(shape, groups)) for shape in shapes)


def group_average(x: Float[Array, "N H W C"], groups: int) -> Float[Array, "N G1 G2 C"]:
    """Mean of features over each group of neighbouring positions, what its head reads.

    Args:
        x: float[N, H, W, C].
        groups: g, the largest number of groups per axis.

    Returns:
        float[N, min(g, H), min(g, W), C].

    Raises:
        UserError: as for `group_sizes`.
    """
    n, height, width, channels = x.shape
    rows, columns = group_sizes((height, width), groups)
    tiles = x.reshape(n, rows, height // rows, columns, width // columns, channels)
    return jnp.mean(tiles, axis=(2, 4))


def spread_groups(values: Array, shape: tuple[int, int]) -> Array:
    """Gives every position its group's value: nearest upsampling of axes 1 and 2.

    Args:
        values: [N, G1, G2, ...].
        shape: (H, W), multiples of (G1, G2).

    Returns:
        [N, H, W, ...].

    Raises:
        UserError: `shape` is no multiple.
    """
    rows, columns = values.shape[1:3]
    if shape[0] % rows or shape[1] % columns:
        raise UserError(f"shape is {tuple(shape)}; expected multiples of ({rows}, {columns})")
    tall = jnp.repeat(values, shape[0] // rows, axis=1)
    return jnp.repeat(tall, shape[1] // columns, axis=2)
