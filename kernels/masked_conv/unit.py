"""A residual unit at the active positions of a run-time mask, its inner maps never written whole.

The unit of spatially adaptive computation time [figurnov2017]: convolutions one after another with
ReLU between them, added to the input where the mask is True and nowhere else. Each convolution is
evaluated where a later one reads it: the mask, dilated by the windows that follow. What one
convolution has computed is a list of rows, which the next one reads through the list's index.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from kernels._common import rows as rows_lib
from kernels._common.convolution import direct
from kernels.masked_conv.active import list_active, over_pieces, piece_sizes, take_rows

Way = Literal["sparse", "dense"]


def dilate(mask: Bool[Array, "N H W"], window: tuple[int, int]) -> Bool[Array, "N H W"]:
    """Positions that a window centred on an active position covers.

    Args:
        mask: bool[N, H, W].
        window: (height, width), odd.
    """
    if window == (1, 1):
        return mask
    # XLA on CPU is far quicker with shifted copies than with its window reduction on bools.
    padded = jnp.pad(mask, ((0, 0), *[(k // 2, k // 2) for k in window]))
    height, width = mask.shape[1:]
    shifts = [
        padded[:, i : i + height, j : j + width] for i in range(window[0]) for j in range(window[1])
    ]
    return functools.reduce(jnp.logical_or, shifts)


def masked_unit(
    x: Float[Array, "N H W C"],
    mask: Bool[Array, "N H W"],
    kernels: Sequence[Float[Array, "KH KW I O"]],
    biases: Sequence[Float[Array, " O"] | None] | None = None,
    *,
    scale: Float[Array, " C"] | None = None,
    shift: Float[Array, " C"] | None = None,
    way: Way | None = None,
) -> Float[Array, "N H W C"]:
    """X + mask · f(x) with f a chain of stride-1 convolutions and ReLUs, f computed where needed.

    ``f(x) = conv_L(relu(... relu(conv_1(pre(x)) + b_1) ...)) + b_L``, and ``pre(x) = relu(x·scale +
    shift)`` where a scale or shift is given (the normalisation before a pre-activation unit), x
    itself otherwise. For inference: it has no gradient with way="sparse".

    Args:
        x: float[N, H, W, C].
        mask: bool[N, H, W], a run-time array; a new one runs the same program.
        kernels: HWIO weights, odd windows, all with SAME padding and stride 1; the last one has C
            outputs. (1x1, 3x3, 1x1) is a bottleneck, (3x3, 3x3) a basic unit.
        biases: one per kernel, None for none.
        scale: float[C].
        shift: float[C].
        way: "sparse" or "dense"; None takes the sparse one and leaves it for the dense one at run
            time where nearly everything is active.

    Returns:
        float[N, H, W, C].

    Raises:
        ValueError: shapes that do not fit.
    """
    biases = (None,) * len(kernels) if biases is None else tuple(biases)
    kernels = tuple(kernels)
    _check(x, mask, kernels, biases)
    every_way = {
        "sparse": lambda: _sparse(x, mask, kernels, biases, scale, shift),
        "dense": lambda: _dense(x, mask, kernels, biases, scale, shift),
    }
    if way is not None:
        return every_way[way]()
    return lax.cond(
        jnp.sum(mask, dtype=jnp.int32) > _DENSE_ABOVE * mask.size,
        every_way["dense"],
        every_way["sparse"],
    )


# Share of active positions beyond which listing them no longer pays.
_DENSE_ABOVE = 0.95


def _check(x, mask, kernels, biases) -> None:
    if tuple(mask.shape) != tuple(x.shape[:3]) or mask.dtype != jnp.bool_:
        raise ValueError(
            f"mask is {mask.dtype}{list(mask.shape)}; expected bool{list(x.shape[:3])}"
        )
    if len(biases) != len(kernels) or not kernels:
        raise ValueError(f"{len(biases)} biases for {len(kernels)} kernels; expected one for each")
    channels = x.shape[3]
    for i, w in enumerate(kernels):
        if w.ndim != 4 or w.shape[2] != channels or not (w.shape[0] % 2 and w.shape[1] % 2):
            raise ValueError(
                f"kernels[{i}] has shape {w.shape}; expected [odd, odd, {channels}, outputs]"
            )
        channels = w.shape[3]
    if channels != x.shape[3]:
        raise ValueError(f"the last kernel has {channels} outputs; expected {x.shape[3]}")


def _before(x: Array, scale: Array | None, shift: Array | None) -> Array:
    if scale is None and shift is None:
        return x
    ones = (1,) * (x.ndim - 1)
    if scale is not None:
        x = x * scale.astype(x.dtype).reshape(*ones, -1)
    if shift is not None:
        x = x + shift.astype(x.dtype).reshape(*ones, -1)
    return jax.nn.relu(x)


def _after(y: Array, bias: Array | None, last: bool) -> Array:
    if bias is not None:
        y = y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
    return y if last else jax.nn.relu(y)


def _dense(x, mask, kernels, biases, scale, shift) -> Array:
    y = _before(x, scale, shift)
    for i, (w, bias) in enumerate(zip(kernels, biases, strict=True)):
        up, left = w.shape[0] // 2, w.shape[1] // 2
        y = direct(y, w, strides=(1, 1), padding=((up, up), (left, left)), groups=1)
        y = _after(y, bias, i == len(kernels) - 1)
    return x + jnp.where(mask[..., None], y, jnp.zeros((), y.dtype))


def _sparse(x, mask, kernels, biases, scale, shift) -> Array:
    """One loop per convolution with a window; 1x1 convolutions ride along with the one before."""
    n, height, width, channels = x.shape
    pixels = x.reshape(-1, channels)
    masks = [mask]
    for w in reversed(kernels[1:]):
        masks.insert(0, dilate(masks[0], w.shape[:2]))
    stages = _stages(kernels)
    lists = {stage[0]: list_active(masks[stage[0]]) for stage in stages}

    def compute():
        # Row 0 of what a window reads is zero: padding, and what is computed nowhere. Padding is
        # zero after the normalisation, so that comes first where the first convolution has one.
        if kernels[0].shape[:2] == (1, 1):
            source, before = pixels, functools.partial(_before, scale=scale, shift=shift)
            numbers = jnp.arange(len(pixels), dtype=jnp.int32)
        else:
            source, before = jnp.pad(_before(pixels, scale, shift), ((1, 0), (0, 0))), _unchanged
            numbers = 1 + jnp.arange(len(pixels), dtype=jnp.int32)
        for stage in stages:
            first, last = stage[0], stage[-1]
            active = lists[first]
            index = _reader(numbers, (n, height, width), kernels[first].shape[:2])
            finish = last == len(kernels) - 1

            def piece(
                start,
                size,
                out,
                *,
                stage=stage,
                active=active,
                index=index,
                source=source,
                before=before,
                finish=finish,
            ):
                rows, valid = take_rows(active, start, size)
                y = before(source.at[index(rows)].get(mode="promise_in_bounds"))
                for i in stage:
                    w = kernels[i]
                    y = y.reshape(size, -1)
                    y = jnp.dot(
                        y.astype(x.dtype),
                        w.reshape(-1, w.shape[3]),
                        preferred_element_type=rows_lib.accumulator(x.dtype),
                    )
                    y = _after(y, biases[i], i == len(kernels) - 1)
                y = y.astype(x.dtype)
                if finish:
                    places = jnp.where(valid, rows, jnp.int32(len(pixels)))
                    return out.at[places].add(y, mode="drop", unique_indices=True)
                return lax.dynamic_update_slice_in_dim(out, y, start + 1, 0)

            depth = math.prod(kernels[first].shape[:3])
            sizes = piece_sizes(depth, element_bytes=x.dtype.itemsize)
            if finish:
                out = pixels
            else:
                # The last piece reaches beyond the end.
                out = jnp.zeros((len(pixels) + 1 + sizes[0], kernels[last].shape[3]), x.dtype)
            source = over_pieces(active.count, sizes, piece, out)
            numbers, before = active.number, _unchanged
        return source

    out = lax.cond(lists[stages[-1][0]].count > 0, compute, lambda: pixels)
    return out.reshape(x.shape)


def _stages(kernels) -> list[list[int]]:
    stages: list[list[int]] = []
    for i, w in enumerate(kernels):
        if i and w.shape[:2] == (1, 1):
            stages[-1].append(i)
        else:
            stages.append([i])
    return stages


def _unchanged(rows: Array) -> Array:
    return rows


def _reader(numbers: Array, size: tuple[int, int, int], window: tuple[int, int]):
    """Function from positions to the source rows of their windows; row 0 stands for padding."""
    n, height, width = size
    if window == (1, 1):
        return lambda rows: numbers.at[rows].get(mode="promise_in_bounds")
    (top, left) = (k // 2 for k in window)
    table = jnp.pad(numbers.reshape(n, height, width), ((0, 0), (top, top), (left, left)))
    padded_height, padded_width = table.shape[1:]
    table = table.reshape(-1)
    dy, dx = np.indices(window)
    offsets = (dy * padded_width + dx).ravel().astype(np.int32)

    def index(rows):
        image, position = jnp.divmod(rows, jnp.int32(height * width))
        y, x = jnp.divmod(position, jnp.int32(width))
        first = (image * padded_height + y) * padded_width + x
        return table.at[first[:, None] + jnp.asarray(offsets)[None]].get(mode="promise_in_bounds")

    return index
