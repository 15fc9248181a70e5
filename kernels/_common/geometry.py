"""Validated sizes of a two-dimensional convolution."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]
"""Accepted values of an argument ``padding``."""

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Accepted input dtypes; sums are float32, or float64 for float64 inputs."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes of a two-dimensional convolution, NHWC inputs and HWIO weights.

    Attributes:
        batch: number of images N; symbolic in a program exported for any batch (`jax.export`).
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
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Returns the shape of the weights, (KH, KW, C / groups, O)."""
        return (*self.window, self.channels // self.groups, self.outputs)

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of one output position of one image."""
        return self.taps * self.channels // self.groups * self.outputs


def is_static(size: Any) -> bool:
    """Checks whether a size is a number, not a symbolic dimension of `jax.export`."""
    return isinstance(size, int | np.integer)


def is_empty(*sizes: Any) -> bool:
    """Checks whether a size is known to be 0; a symbolic dimension is at least 1."""
    return any(is_static(size) and size == 0 for size in sizes)


def make_geometry(
    x,
    w,
    *,
    strides: int | Sequence[int],
    padding: Padding,
    groups: int,
) -> Geometry:
    """Checks inputs, weights and options of a convolution and returns its geometry.

    Args:
        x: float[N, H, W, C], array or `ShapeDtypeStruct`.
        w: float[KH, KW, C / groups, O].
        strides: (vertical, horizontal), or one number for both.
        padding: "SAME", "VALID", ((top, bottom), (left, right)), or one number for all sides.
        groups: number of channel groups.

    Raises:
        ValueError: an argument is invalid; the message has its name, value and accepted values.
    """
    _check_floating("x", x, "[N, H, W, C]")
    _check_floating("w", w, "[KH, KW, C / groups, O]")
    if jnp.dtype(x.dtype) != jnp.dtype(w.dtype):
        raise ValueError(f"w has dtype {w.dtype}; expected the dtype of x, {x.dtype}")
    strides = pair("strides", strides)
    n, height, width, channels = x.shape
    kh, kw, per_group, outputs = w.shape
    if is_empty(channels):
        raise ValueError(f"x has shape {x.shape}; expected at least one channel in its last axis")
    if min(kh, kw) < 1:
        raise ValueError(f"w has shape {w.shape}; expected a window of at least 1x1")
    if is_empty(outputs):
        raise ValueError(f"w has shape {w.shape}; expected at least one output in its last axis")
    groups = positive_integer("groups", groups)
    if channels % groups or outputs % groups:
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
        strides=strides,
        padding=explicit_padding(padding, (height, width), (kh, kw), strides),
        groups=groups,
    )


def _check_floating(name: str, array, axes: str) -> None:
    if len(array.shape) != 4:
        raise ValueError(f"{name} has shape {tuple(array.shape)}; expected four axes {axes}")
    if jnp.dtype(array.dtype).name not in DTYPES:
        raise ValueError(f"{name} has dtype {array.dtype}; expected one of {', '.join(DTYPES)}")


def positive_integer(name: str, value: Any, *, smallest: int = 1) -> int:
    """Converts an integer of Python or NumPy to an int.

    Raises:
        ValueError: it is not an integer, or smaller than `smallest`; the message names it.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = smallest - 1
    if number < smallest or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected an integer >= {smallest}")
    return number


def pair(name: str, value: Any, *, smallest: int = 1) -> tuple[int, int]:
    """Converts (vertical, horizontal), or one number for both axes, to a tuple of ints.

    Raises:
        ValueError: a number is not an integer or smaller than `smallest`; the message names it.
    """
    try:
        found = _integers(value)
    except TypeError:
        found = ()
    if len(found) != 2 or min(found) < smallest:
        raise ValueError(
            f"{name} is {value!r}; expected an integer >= {smallest}, or two: (vertical, "
            "horizontal)"
        )
    return found[0], found[1]


def _integers(value: Any) -> tuple[int, ...]:
    """Returns the integers of a sequence; one integer stands for two equal ones."""
    if isinstance(value, str | bytes | bool):
        raise TypeError
    if isinstance(value, Iterable) and getattr(value, "shape", True):
        return tuple(map(operator.index, value))
    number = operator.index(value)  # pyright: ignore[reportArgumentType]
    return number, number


def explicit_padding(
    padding: Any, size: tuple[int, int], window: tuple[int, int], strides: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Converts padding to ((top, bottom), (left, right)).

    Args:
        padding: "SAME", "VALID", ((top, bottom), (left, right)), (vertical, horizontal) for equal
            sides, or one number for all sides.
        size: (H, W) of the input.
        window: (height, width).
        strides: (vertical, horizontal).

    Raises:
        ValueError: the padding is neither a known name nor non-negative integers.
    """
    if isinstance(padding, str) and padding.upper() in ("SAME", "VALID"):
        sides = lax.padtype_to_pads(size, window, strides, padding.upper())
    else:
        try:
            sides = padding if isinstance(padding, Iterable) else _integers(padding)
            sides = [_integers(side) for side in sides]
        except TypeError:
            sides = []
    if len(sides) != 2 or any(len(side) != 2 or min(side) < 0 for side in sides):
        raise ValueError(
            f'padding is {padding!r}; expected "SAME", "VALID", ((top, bottom), (left, right)) of '
            "integers >= 0, or one such integer for all sides"
        )
    (top, bottom), (left, right) = sides
    return (int(top), int(bottom)), (int(left), int(right))
