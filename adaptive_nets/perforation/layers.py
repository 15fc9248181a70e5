"""The convolutions of a network, found in what it traces to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Pooling:
    """A pooling layer, mean over the whole map included.

    Attributes:
        window: (height, width).
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)).
    """

    window: Pair
    strides: Pair
    padding: tuple[Pair, Pair]


@dataclasses.dataclass(frozen=True)
class ConvLayer:
    """One convolution of a network.

    Attributes:
        name: path of its module in the parameters, such as ``"layer1_0/conv1"``; the second use of
            the same weights is ``"name#2"``.
        input_size: (H, W).
        output_size: (H', W').
        kernel_size: (height, width).
        strides: (vertical, horizontal).
        groups: number of channel groups.
        channels: of the input.
        outputs: number of output channels.
        macs: multiply-accumulates of one image.
        pooling: the next spatial layer where that is a pooling layer, else None; what acts on each
            position alone, 1x1 convolutions included, is looked through.
        perforable: whether it can be perforated at all.
        by_default: whether the paper perforates it: not 1x1, and some pooling layer comes later.
        reason: why it cannot be, or is not by default; empty where it is.
        follows: of a 1x1 convolution the one before it, where only functions of each position come
            between; it is computed at that one's positions only, unless it has a mask of its own.
    """

    name: str
    input_size: Pair
    output_size: Pair
    kernel_size: Pair
    strides: Pair
    groups: int
    channels: int
    outputs: int
    macs: int
    pooling: Pooling | None
    perforable: bool
    by_default: bool
    reason: str = ""
    follows: str = ""

    @property
    def positions(self) -> int:
        """H'·W'."""
        return self.output_size[0] * self.output_size[1]


def fingerprint(layers: Sequence[ConvLayer]) -> str:
    """Sixteen hexadecimal digits by which plans tell the network that they are for."""
    content = [
        [
            *(layer.name, layer.input_size, layer.output_size, layer.kernel_size, layer.strides),
            *(layer.groups, layer.channels, layer.outputs),
        ]
        for layer in layers
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
