"""Sizes of a convolution, checked once and passed on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""What inputs may be; sums are kept in float32, in float64 for float64."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of a two-dimensional convolution, NHWC inputs and HWIO weights.

    Attributes:
        batch: number of images N.
        height: of the input, H.
        width: of the input, W.
        channels: of the input, C.
        outputs: number of output channels O.
        window: (height, width) of the kernel.
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)), not negative.
        groups: number of channel groups.
    """

    batch: int
    height: int
    width: int
    channels: int
    outputs: int
    window: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    groups: int

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of the padded input."""
        (top, bottom), (left, right) = self.padding
        return self.height + top + bottom, self.width + left + right

    @property
    def output_size(self) -> tuple[int, int]:
        """(H', W') of the output."""
        sizes = zip(self.padded_size, self.window, self.strides, strict=True)
        height, width = (max((size - k) // s + 1, 0) for size, k, s in sizes)
        return height, width

    @property
    def positions(self) -> int:
        """H'·W'."""
        return math.prod(self.output_size)

    @property
    def taps(self) -> int:
        """Number of kernel taps."""
        return math.prod(self.window)

    @property
    def pointwise(self) -> bool:
        """Whether an output reads one input position, the one at its own place."""
        return self.window == (1, 1) and self.strides == (1, 1) and self.padded_size == self.size

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input."""
        return self.height, self.width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one computed position of one image."""
        return self.taps * self.channels // self.groups * self.outputs


def make_geometry(
    x,
    w,
    *,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    groups: int,
) -> Geometry:
    """Checks inputs, weights and options of a convolution.

    Args:
        x: float[N, H, W, C], array or shape with dtype.
        w: float[KH, KW, C / groups, O].
        strides: (vertical, horizontal).
        padding: "SAME", "VALID" or ((top, bottom), (left, right)).
        groups: number of channel groups.

    Raises:
        ValueError: something does not fit; the message names it, its value and what was expected.
    """
    _check_floating("x", x, "[N, H, W, C]")
    _check_floating("w", w, "[KH, KW, C / groups, O]")
    if jnp.dtype(x.dtype) != jnp.dtype(w.dtype):
        raise ValueError(f"w has dtype {w.dtype}; expected that of x, {x.dtype}")
    if len(strides) != 2 or any(int(s) != s or s < 1 for s in strides):
        raise ValueError(f"strides is {strides!r}; expected two positive integers")
    n, height, width, channels = x.shape
    kh, kw, per_group, outputs = w.shape
    if min(kh, kw) < 1:
        raise ValueError(f"w has shape {w.shape}; expected a window of at least 1x1")
    if int(groups) != groups or groups < 1 or channels % groups or outputs % groups:
        raise ValueError(
            f"groups is {groups!r}; expected a divisor of {channels} input and {outputs} output "
            "channels"
        )
    if per_group != channels // groups:
        raise ValueError(
            f"w has shape {w.shape}; expected {channels // groups} in its third axis for "
            f"{channels} input channels in {groups} groups"
        )
    return Geometry(
        batch=n,
        height=height,
        width=width,
        channels=channels,
        outputs=outputs,
        window=(kh, kw),
        strides=(int(strides[0]), int(strides[1])),
        padding=explicit_padding(padding, (height, width), (kh, kw), tuple(strides)),
        groups=int(groups),
    )


def _check_floating(name: str, array, axes: str) -> None:
    if len(array.shape) != 4:
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected four axes {axes}")
    if jnp.dtype(array.dtype).name not in DTYPES:
        raise ValueError(f"{name} has dtype {array.dtype}; expected one of {', '.join(DTYPES)}")


def explicit_padding(padding, size, window, strides) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding as ((top, bottom), (left, right)).

    Raises:
        ValueError: neither a known name nor pairs of whole numbers that are not negative.
    """
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(
                f'padding is {padding!r}; expected "SAME", "VALID" or ((top, bottom), (left, '
                "right))"
            )
        pairs = lax.padtype_to_pads(size, window, strides, padding.upper())
    else:
        pairs = [tuple(pair) for pair in padding]
        if len(pairs) != 2 or any(
            len(pair) != 2 or any(int(p) != p or p < 0 for p in pair) for pair in pairs
        ):
            raise ValueError(
                f"padding is {padding!r}; expected ((top, bottom), (left, right)) of integers >= 0"
            )
    (top, bottom), (left, right) = pairs
    return (int(top), int(bottom)), (int(left), int(right))
