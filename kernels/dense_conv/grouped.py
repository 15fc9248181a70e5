"""Grouped convolutions as ungrouped ones, or as sums over taps.

XLA's CPU backend computes a grouped convolution slower than one convolution per group, and its
weight gradient much slower. Groups of few channels make products too narrow for the vector units,
so such groups are computed several at a time, with weights that are zero between groups. A value
that is not finite then also reaches the groups computed together with its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

# Fewest channels of a product: a 512-bit register of float32.
LEAST_CHANNELS = 16
# Most outputs per channel, and most taps, for which a depthwise convolution is a sum over taps.
_TAP_OUTPUTS, _MOST_TAPS = 2, 64

Convolve = Callable[..., Array]
"""(lhs, rhs, **params) -> convolution without groups."""


def groups_at_once(groups: int, channels: int) -> int:
    """Returns the number of groups to compute together, a divisor of `groups`.

    Args:
        groups: number of groups.
        channels: number of channels that each group sums over.
    """
    enough = (k for k in range(1, groups) if groups % k == 0 and k * channels >= LEAST_CHANNELS)
    return next(enough, groups)


def convolve(lhs: Array, rhs: Array, ungrouped: Convolve, **params: Any) -> Array:
    """Computes a convolution with groups of features or of images.

    Args:
        lhs: input, in any layout.
        rhs: weights, in any layout.
        ungrouped: computes a convolution without groups.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    single = params | {"feature_group_count": 1, "batch_group_count": 1}
    if params["batch_group_count"] > 1:
        return _groups_of_images(lhs, rhs, params["batch_group_count"], ungrouped, single)
    groups, spec = params["feature_group_count"], params["dimension_numbers"].rhs_spec
    outputs, channels, *window = (rhs.shape[axis] for axis in spec)
    if channels == 1 and outputs <= groups * _TAP_OUTPUTS and math.prod(window) <= _MOST_TAPS:
        return _by_taps(lhs, rhs, single)
    return _groups_of_features(lhs, rhs, groups, ungrouped, single)


def _groups_of_features(lhs, rhs, groups: int, ungrouped: Convolve, params) -> Array:
    numbers = params["dimension_numbers"]
    (_, feature, *_), (output, depth, *_), (_, out_feature, *_) = numbers
    together = groups_at_once(groups, rhs.shape[depth])
    parts = [
        ungrouped(part, _block_diagonal(weights, together, output, depth), **params)
        for part, weights in zip(
            jnp.split(lhs, groups // together, feature),
            jnp.split(rhs, groups // together, output),
            strict=True,
        )
    ]
    return jnp.concatenate(parts, out_feature)


def _block_diagonal(weights: Array, blocks: int, output: int, depth: int) -> Array:
    """Repeats the weights along their depth, with zeros between different groups.

    Args:
        weights: weights of `blocks` groups, side by side along the axis `output`.
        blocks: number of groups.
        output: axis of output features.
        depth: axis of input features of one group.
    """
    if blocks == 1:
        return weights
    repeated = jnp.concatenate([weights] * blocks, depth)

    def group_of(axis):
        size = repeated.shape[axis]
        return lax.broadcasted_iota(jnp.int32, repeated.shape, axis) // (size // blocks)

    return jnp.where(group_of(output) == group_of(depth), repeated, 0)


def _groups_of_images(lhs, rhs, groups: int, ungrouped: Convolve, params) -> Array:
    numbers = params["dimension_numbers"]
    (images, *_), (output, *_), (out_image, out_feature, *_) = numbers
    together = groups_at_once(groups, lhs.shape[images] // groups)
    parts = [
        _diagonal_blocks(ungrouped(part, weights, **params), together, out_image, out_feature)
        for part, weights in zip(
            jnp.split(lhs, groups // together, images),
            jnp.split(rhs, groups // together, output),
            strict=True,
        )
    ]
    return jnp.concatenate(parts, out_feature)


def _diagonal_blocks(y: Array, blocks: int, image: int, feature: int) -> Array:
    """Selects the images and features of the same group, side by side along the features."""
    if blocks == 1:
        return y
    rows = jnp.split(y, blocks, image)
    parts = [jnp.split(row, blocks, feature)[i] for i, row in enumerate(rows)]
    return jnp.concatenate(parts, feature)


def _by_taps(lhs: Array, rhs: Array, params: dict[str, Any]) -> Array:
    """Computes a depthwise convolution as a sum over taps of shifted inputs."""
    numbers = params["dimension_numbers"]
    dtype = params["preferred_element_type"] or lhs.dtype
    total = jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
    x = jnp.transpose(lhs, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    w = jnp.transpose(rhs, (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0]))
    x, w = x.astype(total), w.astype(total)
    if w.shape[-1] != x.shape[-1]:
        x = jnp.repeat(x, w.shape[-1] // x.shape[-1], axis=-1)
    inner = [(*pair, 0) for pair in params["padding"]]
    for axis, step in enumerate(params["lhs_dilation"]):
        inner[axis] = (*params["padding"][axis], step - 1)
    x = lax.pad(x, jnp.zeros((), total), [(0, 0, 0), *inner, (0, 0, 0)])
    window, strides, spread = w.shape[:-2], params["window_strides"], params["rhs_dilation"]
    sizes = [
        max(0, (n - (k - 1) * d - 1) // s + 1)
        for n, k, d, s in zip(x.shape[1:-1], window, spread, strides, strict=True)
    ]
    y = jnp.zeros((x.shape[0], *sizes, x.shape[-1]), total)
    if y.size:
        for tap in itertools.product(*map(range, window)):
            first = [i * d for i, d in zip(tap, spread, strict=True)]
            last = [i + (n - 1) * s + 1 for i, n, s in zip(first, sizes, strides, strict=True)]
            shifted = lax.slice(
                x, (0, *first, 0), (x.shape[0], *last, x.shape[-1]), (1, *strides, 1)
            )
            y = y + shifted * w[tap].reshape((1,) * (x.ndim - 1) + (-1,))
    order = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return jnp.transpose(y.astype(dtype), [order.index(axis) for axis in range(len(order))])
