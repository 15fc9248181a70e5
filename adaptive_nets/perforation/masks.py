"""Perforation masks: boolean maps of the computed output positions [figurnov2016].

A mask is a NumPy array created when a network is built, one per layer, shared by all channels and
images, in training and in evaluation. `keep` is the fraction of positions kept, one minus the
paper's perforation rate. Grid and regular masks keep at most keep·H'·W' positions; all others keep
exactly floor(keep·H'·W').
"""

from __future__ import annotations

import math
from fractions import Fraction

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from adaptive_nets.perforation.arguments import check_keep, check_pair
from adaptive_nets.perforation.pooling_counts import Padding, pooling_counts
from adaptive_nets.perforation.randomness import host_generator
from adaptive_nets.runtime.errors import UserError


def uniform_mask(key: jax.Array, shape: tuple[int, int], keep: float) -> Bool[np.ndarray, "H W"]:
    """Draws positions uniformly without replacement.

    Args:
        key: PRNG key.
        shape: (H', W') of the layer's output.
        keep: fraction of positions kept, in (0, 1].

    Returns:
        bool[H', W'] with floor(keep·H'·W') positions kept.

    Raises:
        UserError: an argument is invalid, or no position would be kept.
    """
    shape = check_pair("shape", shape)
    _, kept = check_keep(keep, shape)
    return _keep_first(host_generator(key, "mask").permutation(math.prod(shape)), kept, shape)


def grid_mask(key: jax.Array, shape: tuple[int, int], keep: float) -> Bool[np.ndarray, "H W"]:
    """Draws a grid: the outer product of rows and columns from Graham's pseudorandom sequence.

    The paper keeps floor(√(keep·H'·W')) rows and columns of square maps. Here each axis keeps
    floor(√keep·size), which is the same rule on square maps. If an axis is too short, it keeps one
    position and the other axis keeps floor(keep·H'·W'). At most keep·H'·W' positions are kept,
    often fewer; the actual fraction is the mask's mean.

    Args:
        key: PRNG key.
        shape: (H', W') of the layer's output.
        keep: fraction of positions kept, in (0, 1].

    Returns:
        bool[H', W'], the outer product of kept rows and columns.

    Raises:
        UserError: an argument is invalid, or no position would be kept.
    """
    shape = check_pair("shape", shape)
    fraction, kept = check_keep(keep, shape)
    # floor(√y) = isqrt(floor(y)), which is exact where √keep·size is rounded.
    rows, columns = (math.isqrt(math.floor(fraction * (size * size))) for size in shape)
    if not rows:
        rows, columns = 1, kept
    elif not columns:
        rows, columns = kept, 1
    mask = np.zeros(shape, np.bool_)
    vertical, horizontal = host_generator(key, "mask").random(2)
    mask[
        np.ix_(
            graham_sequence(shape[0], rows, vertical),
            graham_sequence(shape[1], columns, horizontal),
        )
    ] = True
    return mask


def regular_mask(key: jax.Array, shape: tuple[int, int], keep: float) -> Bool[np.ndarray, "H W"]:
    """Draws a regular grid: every a-th row and b-th column, the finest with at most `keep`.

    b is a or a + 1. Not a mask of the paper: a convolution on a regular grid is a strided
    convolution, which is fast on every device. The offset is random, among those that keep
    floor(H'/a) rows and floor(W'/b) columns.

    Args:
        key: PRNG key.
        shape: (H', W') of the layer's output.
        keep: fraction of positions kept, in (0, 1].

    Returns:
        bool[H', W'] with at most keep·H'·W' positions kept; the actual fraction is the mask's mean.

    Raises:
        UserError: an argument is invalid, or no position would be kept.
    """
    shape = check_pair("shape", shape)
    fraction, _ = check_keep(keep, shape)
    a = b = 1
    while a * b * fraction < 1:
        a, b = (a, b + 1) if a == b else (b, b)
    # An axis shorter than its step keeps one position; the other axis then takes a larger step.
    if a > shape[0]:
        a, b = shape[0], math.ceil(1 / (fraction * shape[0]))
    elif b > shape[1]:
        a, b = math.ceil(1 / (fraction * shape[1])), shape[1]
    steps = (a, b)
    mask = np.zeros(shape, np.bool_)
    draws = host_generator(key, "mask").random(2)
    starts = [
        size % step + int(draw * (step - size % step))
        for size, step, draw in zip(shape, steps, draws, strict=True)
    ]
    mask[starts[0] :: steps[0], starts[1] :: steps[1]] = True
    return mask


def graham_sequence(size: int, count: int, offset: float) -> Int[np.ndarray, "K"]:
    """Computes positions ceil(α·(i − 1 + u)) − 1 with α = size / count, for i = 1 … count.

    This is the pseudorandom sequence of fractional max-pooling (Graham, arXiv:1412.6071), starting
    at 0. Gaps are floor(α) or ceil(α), all equal if α is an integer. Arithmetic is in exact
    fractions: in floating point a draw near 0 or 1 can repeat a position.

    Args:
        size: number of positions on the axis.
        count: number of positions to keep, at most `size`.
        offset: draw u in [0, 1); 0 is replaced by the smallest positive float64.

    Returns:
        int64[count], increasing, in [0, size).
    """
    alpha = Fraction(size, count)
    start = Fraction(max(float(offset), float(np.finfo(np.float64).tiny)))
    return np.array([math.ceil(alpha * (i + start)) - 1 for i in range(count)], np.int64)


def pooling_structure_mask(
    key: jax.Array,
    shape: tuple[int, int],
    keep: float,
    *,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
) -> Bool[np.ndarray, "H W"]:
    """Keeps the positions that the most windows of the next pooling layer read; random ties.

    Args:
        key: PRNG key.
        shape: (H', W') of the layer's output.
        keep: fraction of positions kept, in (0, 1].
        window: (height, width) of the pooling layer.
        strides: (vertical, horizontal) of the pooling layer.
        padding: "SAME", "VALID" or ((top, bottom), (left, right)) of the pooling layer.

    Returns:
        bool[H', W'] with floor(keep·H'·W') positions kept.

    Raises:
        UserError: an argument is invalid, or no position would be kept.
    """
    shape = check_pair("shape", shape)
    _, kept = check_keep(keep, shape)
    counts = pooling_counts(shape, window, strides, padding)
    noise = host_generator(key, "mask").permutation(counts.size)
    return _keep_first(np.lexsort((noise, -counts.ravel())), kept, shape)


def impact_mask(impact: Float[np.ndarray, "H W"], keep: float) -> Bool[np.ndarray, "H W"]:
    """Keeps the positions of largest impact B(x, y), the mean over images of Σ_t |∂L/∂V · V|.

    Args:
        impact: float[H', W'], finite.
        keep: fraction of positions kept, in (0, 1].

    Returns:
        bool[H', W'] with floor(keep·H'·W') positions kept. Ties keep the first in column-major
        order, as in the authors' code.

    Raises:
        UserError: an argument is invalid, or no position would be kept.
    """
    impact = np.asarray(impact)
    numeric = impact.dtype.kind in "iuf" or impact.dtype.name == "bfloat16"
    if impact.ndim != 2 or not impact.size or not numeric:
        raise UserError(
            f"impact has shape {impact.shape} and dtype {impact.dtype}; expected float[H', W']"
        )
    impact = impact.astype(np.float64)
    if not np.isfinite(impact).all():
        raise UserError(
            f"impact has {np.count_nonzero(~np.isfinite(impact))} values that are not finite; "
            "expected finite ones"
        )
    _, kept = check_keep(keep, impact.shape)
    order = np.argsort(-impact.T.ravel(), kind="stable")
    return np.ascontiguousarray(_keep_first(order, kept, impact.T.shape).T)


def _keep_first(order: np.ndarray, kept: int, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(math.prod(shape), np.bool_)
    mask[order[:kept]] = True
    return mask.reshape(shape)
