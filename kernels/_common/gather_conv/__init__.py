"""Convolution at listed rows, on which both operations are built on accelerators.

    out[r] = Σ_t pixels[rows[r] + taps[t]] · w[t]  (+ bias, + residual, ReLU)

`pixels` is the padded input flattened over images and positions; `taps` are the offsets of a
window's pixels from its first pixel. The list of rows encodes stride, padding and mask, so a mask
shared by all images and one mask per image use the same kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from kernels._common.tiling import TileConfig

IMPLEMENTATIONS = ("pallas_triton", "mosaic_tpu")
DTYPES = ("float32", "bfloat16", "float16")


def gather_conv(
    pixels: jax.Array,
    w: jax.Array,
    rows: jax.Array,
    *,
    taps: Sequence[int],
    count: jax.Array | None = None,
    bias: jax.Array | None = None,
    groups: int = 1,
    activation: Literal["relu"] | None = None,
    residual: jax.Array | None = None,
    tile: TileConfig | None = None,
    implementation: Literal["pallas_triton", "mosaic_tpu"],
    op: str = "masked_conv",
    interpret: Any = False,
) -> jax.Array:
    """Computes a convolution at listed rows.

    Sums are float32. The precision of float32 products is `jax.default_matmul_precision`.

    Args:
        pixels: float[M, C].
        w: float[T, C / groups, O].
        rows: int32[R], row of the first pixel of each window; entries from `count` on are ignored.
        taps: T non-negative offsets such that rows[r] + taps[t] is a row of `pixels`. Rows out of
            bounds are clamped.
        count: int32[], number of rows computed; later outputs are 0 and their tiles are skipped.
            None computes all rows.
        bias: float[O].
        groups: number of channel groups.
        activation: None or "relu".
        residual: float[R, O], added before the activation.
        tile: tile sizes; None for the tuned tile, else the heuristic's.
        implementation: "pallas_triton" (CUDA) or "mosaic_tpu" (TPU).
        op: operation whose tuned table is read.
        interpret: True or Pallas' interpreter parameters, to run without the device.

    Returns:
        float[R, O] in the dtype of `pixels`.

    Raises:
        ValueError: shapes or dtypes of the arguments are inconsistent.
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    taps = tuple(int(t) for t in taps)
    _check(pixels, w, rows, taps, count, bias, groups, activation, residual)
    if implementation == "pallas_triton":
        from kernels._common.gather_conv import pallas_triton as backend
    elif implementation == "mosaic_tpu":
        from kernels._common.gather_conv import mosaic_tpu as backend
    else:
        raise ValueError(f"implementation is {implementation!r}; expected one of {IMPLEMENTATIONS}")
    if pixels.dtype.name not in DTYPES:
        raise NotImplementedError(
            f"{implementation} needs one of {', '.join(DTYPES)}; x has dtype {pixels.dtype}"
        )
    if 0 in pixels.shape[1:] + w.shape:
        raise NotImplementedError(
            f"{implementation} needs at least one tap and channel; pixels has shape "
            f"{pixels.shape} and w {w.shape}"
        )
    if rows.size == 0:
        return jnp.zeros((0, w.shape[2]), pixels.dtype)
    limit = jnp.int32(rows.size)
    limit = limit if count is None else jnp.minimum(count.astype(jnp.int32), limit)
    # Rows from `count` on are undefined; clamping keeps their loads in bounds.
    last = pixels.shape[0] - 1 - max(taps)
    rows = jnp.clip(rows.astype(jnp.int32), 0, last)
    pixels, w, taps = backend.merge(pixels, w, taps, groups)
    return backend.run(
        pixels,
        w,
        rows,
        limit,
        taps=taps,
        bias=bias,
        groups=groups,
        activation=activation,
        residual=residual,
        tile=tile,
        op=op,
        interpret=interpret,
    )


def consecutive_runs(taps: tuple[int, ...]) -> list[tuple[int, int]]:
    """Returns (index of the first tap, length) of each maximal run of consecutive taps."""
    starts = [t for t in range(len(taps)) if t == 0 or taps[t] != taps[t - 1] + 1]
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], len(taps)], strict=True)]


def merge_runs(
    pixels: jax.Array, w: jax.Array, taps: tuple[int, ...]
) -> tuple[jax.Array, jax.Array, tuple[int, ...]]:
    """Rewrites the convolution so that each run of consecutive taps becomes one tap.

    The merged tap has the channels of all pixels of the run. With few channels, a window then reads
    a few long rows instead of many short ones; the input grows by the run length. It requires one
    group and runs of equal length; otherwise the arguments are returned unchanged.
    """
    lengths = {length for _, length in consecutive_runs(taps)}
    if len(lengths) != 1:
        return pixels, w, taps
    [length] = lengths
    size = pixels.shape[0]
    longer = jnp.pad(pixels, ((0, length - 1), (0, 0)))
    merged = jnp.concatenate([longer[j : j + size] for j in range(length)], axis=1)
    return merged, w.reshape(len(taps) // length, -1, w.shape[2]), taps[::length]


def _check(pixels, w, rows, taps, count, bias, groups, activation, residual) -> None:
    if pixels.ndim != 2 or w.ndim != 3 or rows.ndim != 1:
        raise ValueError(
            f"pixels, w and rows have shapes {pixels.shape}, {w.shape}, {rows.shape}; expected "
            "[M, C], [T, C / groups, O] and [R]"
        )
    if groups < 1 or pixels.shape[1] != groups * w.shape[1] or w.shape[2] % groups:
        raise ValueError(
            f"groups is {groups} with {pixels.shape[1]} channels and w of {w.shape}; expected w "
            "[T, channels / groups, outputs] with outputs divisible by groups"
        )
    if len(taps) != w.shape[0] or min(taps, default=0) < 0:
        raise ValueError(f"taps is {taps}; expected {w.shape[0]} offsets >= 0")
    if rows.size and max(taps, default=0) >= pixels.shape[0]:
        raise ValueError(f"taps reaches {max(taps)}; expected less than {pixels.shape[0]} pixels")
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise ValueError(f"rows has dtype {rows.dtype}; expected int32")
    if count is not None and (count.ndim or not jnp.issubdtype(count.dtype, jnp.integer)):
        raise ValueError(f"count is {count.dtype}{list(count.shape)}; expected int32[]")
    if activation not in (None, "relu"):
        raise ValueError(f'activation is {activation!r}; expected None or "relu"')
    outputs = w.shape[2]
    for name, array, shape in (
        ("w", w, w.shape),
        ("bias", bias, (outputs,)),
        ("residual", residual, (rows.size, outputs)),
    ):
        if array is None:
            continue
        if array.shape != shape or array.dtype != pixels.dtype:
            raise ValueError(
                f"{name} is {array.dtype}{list(array.shape)}; expected {pixels.dtype}{list(shape)}"
            )
