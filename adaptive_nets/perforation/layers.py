"""Descriptions of a network's convolutions and pooling layers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Pooling layer; global pooling is a window of the whole map.

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
    """Convolution of a network.

    Attributes:
        name: module path in the parameters, such as ``"layer1_0/conv1"``; the second use of the
            same weights is ``"name#2"``.
        input_size: (H, W).
        output_size: (H', W').
        kernel_size: (height, width).
        strides: (vertical, horizontal).
        groups: number of channel groups.
        channels: number of input channels.
        outputs: number of output channels.
        macs: multiply-accumulates of one image.
        pooling: next spatial layer if it is a pooling layer, else None; position-wise layers,
            including 1x1 convolutions, are skipped.
        perforable: whether it can be perforated.
        by_default: whether the paper perforates it: not 1x1, and a pooling layer comes later.
        reason: why it cannot be perforated or is not by default; empty if it is.
        follows: for a 1x1 convolution, the convolution before it if only position-wise functions
            come between; unless it has its own mask, it is computed at the positions of that one.
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
        """Returns the number of output positions, H'·W'."""
        return self.output_size[0] * self.output_size[1]


def fingerprint(layers: Sequence[ConvLayer]) -> str:
    """Hashes the convolutions of a network to 16 hexadecimal digits, stored in its plans."""
    content = [
        [
            *(layer.name, layer.input_size, layer.output_size, layer.kernel_size, layer.strides),
            *(layer.groups, layer.channels, layer.outputs),
        ]
        for layer in layers
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
