"""Input gradients on a CPU as a matrix product and a sum of shifted maps (col2im).

XLA computes an input gradient as a convolution with as many windows as the input has positions,
zeros inserted for strides included. Here one product gives what each output position sends to the
taps of its window, and these values are added up, a few images at a time so that they stay in
cache. With large windows, positions that are equal modulo the strides are added up apart, as each
tap then meets a map of the output's size. It multiplies less if the output has fewer positions, and
in wider products if the input has few channels.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# XLA's convolution is slower below so many input channels, or if the input has so many times the
# positions of the output. At stride 1 with 16 channels or more both take about the same time.
_CHANNELS = 16
_POSITIONS = 2
# Taps for each position modulo the strides from which such positions are added up apart; with fewer
# taps the interleaving of the maps costs more than it saves.
_TAPS_PER_PHASE = 4
# Bytes of products at a time: about the level-2 cache of a server core; a single image may
# exceed it.
_PRODUCT_BYTES = 1_300_000

# The derivative of an NHWC convolution for its input: reversed HWIO weights with inputs and outputs
# exchanged.
_FORM = ((0, 3, 1, 2), (2, 3, 0, 1), (0, 3, 1, 2))


def is_worthwhile(dy: Array, w: Array, **params: Any) -> bool:
    """Checks whether a convolution is an input gradient that `by_taps` computes faster than XLA.

    Args:
        dy: float[N, H', W', O], gradient with respect to the output.
        w: float[KH, KW, C, O], reversed weights.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    if tuple(map(tuple, params["dimension_numbers"])) != _FORM:
        return False
    if set(params["window_strides"]) != {1} or not jnp.issubdtype(dy.dtype, jnp.floating):
        return False
    positions = math.prod(_input_size(dy, w, params))
    enlarges = positions >= _POSITIONS * math.prod(dy.shape[1:3])
    return positions > 0 and (enlarges or w.shape[2] < _CHANNELS)


def _input_size(dy: Array, w: Array, params: dict[str, Any]) -> list[int]:
    return [
        (m - 1) * s + 1 + sum(pad) - (k - 1) * d
        for m, s, pad, k, d in zip(
            dy.shape[1:3], params["lhs_dilation"], params["padding"], w.shape[:2],
            params["rhs_dilation"], strict=True,
        )
    ]  # fmt: skip


def by_taps(
    dy: Float[Array, "N H2 W2 O"], w: Float[Array, "KH KW C O"], **params: Any
) -> Float[Array, "N H W C"]:
    """Computes the input gradient of a convolution.

    Args:
        dy: float[N, H', W', O], gradient with respect to the output.
        w: float[KH, KW, C, O], reversed weights.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    (kh, kw, channels, outputs), images, size = w.shape, len(dy), dy.shape[1:3]
    dtype = params["preferred_element_type"] or dy.dtype
    total_dtype = jnp.promote_types(dtype, jnp.float32)
    strides, dilation = params["lhs_dilation"], params["rhs_dilation"]
    matrix = w.reshape(-1, outputs)
    result = _input_size(dy, w, params)
    # Positions that are equal modulo this get values from the same taps.
    modulus = strides if kh * kw >= _TAPS_PER_PHASE * math.prod(strides) else (1, 1)
    steps_inside = [s // m for s, m in zip(strides, modulus, strict=True)]
    spans = [(m - 1) * s + 1 for m, s in zip(size, steps_inside, strict=True)]
    blocks = [-(-n // m) for n, m in zip(result, modulus, strict=True)]
    phases: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    for number, tap in enumerate(itertools.product(range(kh), range(kw))):
        starts = [
            low - i * d for (low, _), i, d in zip(params["padding"], tap, dilation, strict=True)
        ]
        shifts, phase = zip(*map(divmod, starts, modulus), strict=True)
        phases.setdefault(phase, []).append((number, list(shifts)))

    def of_images(part: Array) -> Array:
        sent = lax.dot_general(
            part.reshape(-1, outputs), matrix, (((1,), (1,)), ((), ())),
            preferred_element_type=total_dtype,
        ).reshape(len(part), *size, kh * kw, channels)  # fmt: skip
        zero = jnp.zeros((), total_dtype)

        def of_phase(phase: tuple[int, ...]) -> Array:
            total = jnp.zeros((len(part), *blocks, channels), total_dtype)
            for number, shifts in phases.get(phase, ()):
                around = [
                    (k, b - span - k, s - 1)
                    for k, b, span, s in zip(shifts, blocks, spans, steps_inside, strict=True)
                ]
                total += lax.pad(sent[:, :, :, number], zero, ((0, 0, 0), *around, (0, 0, 0)))
            return total

        if math.prod(modulus) == 1:
            return of_phase((0, 0)).astype(dtype)
        rows = [
            jnp.stack([of_phase((y, x)) for x in range(modulus[1])], axis=3)
            for y in range(modulus[0])
        ]
        tall, wide = (b * m for b, m in zip(blocks, modulus, strict=True))
        whole = jnp.stack(rows, axis=2).reshape(len(part), tall, wide, channels)
        return whole[:, : result[0], : result[1]].astype(dtype)

    per_image = math.prod(size) * kh * kw * channels * total_dtype.itemsize
    count = images if kh * kw == 1 else images_at_once(images, per_image)
    steps = images // count
    if steps == 1 and count == images:
        return of_images(dy)
    whole = lax.map(of_images, dy[: steps * count].reshape(steps, count, *dy.shape[1:]))
    whole = whole.reshape(steps * count, *result, channels)
    if steps * count == images:
        return whole
    return jnp.concatenate([whole, of_images(dy[steps * count :])])


def images_at_once(images: int, bytes_of_one: int) -> int:
    """Returns the number of images whose products are made at a time, evenly divided."""
    most = min(images, max(1, _PRODUCT_BYTES // max(bytes_of_one, 1)))
    return math.ceil(images / math.ceil(images / most))
