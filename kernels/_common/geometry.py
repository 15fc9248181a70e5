"""Validated sizes of a two-dimensional convolution."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Accepted input dtypes; sums are float32, or float64 for float64 inputs."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of a two-dimensional convolution, NHWC inputs and HWIO weights.

    Attributes:
        batch: number of images N.
        height: height of the input, H.
        width: width of the input, W.
        channels: number of input channels C.
        outputs: number of output channels O.
        window: (height, width) of the kernel.
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)), non-negative.
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
        """Returns (H, W) of the padded input."""
        (top, bottom), (left, right) = self.padding
        return self.height + top + bottom, self.width + left + right

    @property
    def output_size(self) -> tuple[int, int]:
        """Returns (H', W') of the output."""
        sizes = zip(self.padded_size, self.window, self.strides, strict=True)
        height, width = (max((size - k) // s + 1, 0) for size, k, s in sizes)
        return height, width

    @property
    def positions(self) -> int:
        """Returns the number of output positions per image, H'·W'."""
        return math.prod(self.output_size)

    @property
    def taps(self) -> int:
        """Returns the number of kernel taps."""
        return math.prod(self.window)

    @property
    def pointwise(self) -> bool:
        """Checks whether this is a 1x1 convolution with stride 1 and no padding."""
        return self.window == (1, 1) and self.strides == (1, 1) and self.padded_size == self.size

    @property
    def size(self) -> tuple[int, int]:
        """Returns (H, W) of the input."""
        return self.height, self.width

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of one output position of one image."""
        return self.taps * self.channels // self.groups * self.outputs


def make_geometry(
    x,
    w,
    *,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    groups: int,
) -> Geometry:
    """Checks inputs, weights and options of a convolution and returns its geometry.

    Args:
        x: float[N, H, W, C], array or `ShapeDtypeStruct`.
        w: float[KH, KW, C / groups, O].
        strides: (vertical, horizontal).
        padding: "SAME", "VALID" or ((top, bottom), (left, right)).
        groups: number of channel groups.

    Raises:
        ValueError: an argument is invalid; the message has its name, value and accepted values.
    """
    _check_floating("x", x, "[N, H, W, C]")
    _check_floating("w", w, "[KH, KW, C / groups, O]")
    if jnp.dtype(x.dtype) != jnp.dtype(w.dtype):
        raise ValueError(f"w has dtype {w.dtype}; expected the dtype of x, {x.dtype}")
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
    """Converts padding to ((top, bottom), (left, right)).

    Raises:
        ValueError: the padding is neither a known name nor two pairs of non-negative integers.
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
