"""Ponder maps of pictures of any size, by a trained network of adaptive depth."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from adaptive_nets.analysis import count_macs
from adaptive_nets.models import create_model, full_output, model_entry, ponder_map
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.adaptive.forms import plain_form
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.output import ModelOutput, blocks_of
from adaptive_nets.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class PonderResult:
    """Ponder maps of pictures of one size.

    Attributes:
        maps: float32[N, H, W], ponder cost of each pixel: the sum over blocks of ρ, brought to the
            size of the pictures by nearest neighbours.
        flops: int64[N], FLOPs of each picture, 2 per multiply-accumulate.
    """

    maps: Float32[np.ndarray, "N H W"]
    flops: Int64[np.ndarray, "N"]


@dataclasses.dataclass(frozen=True)
class PonderNetwork:
    """Trained network of adaptive depth, as a function from pixels to ponder maps.

    Attributes:
        name: name in the registry.
        module: the network.
        variables: its variables.
        normalisation: normalisation of its inputs.
        channels: number of channels of its inputs, 1 or 3.
        stride: pixels of the image for one position of the last block's map.
    """

    name: str
    module: nn.Module
    variables: Any
    normalisation: InputNormalisation
    channels: int
    stride: int

    @classmethod
    def of(
        cls, module: nn.Module, variables: Any, normalisation: InputNormalisation, *, name: str,
        source: str,
    ) -> PonderNetwork:  # fmt: skip
        """Checks that a network computes ponder maps, and measures its stride.

        Args:
            module: the network.
            variables: its variables.
            normalisation: normalisation of its inputs.
            name: name in the registry.
            source: flag or path that it was loaded from, for messages.

        Raises:
            UserError: the network is of fixed depth, takes no images, or only those of one size.
        """
        entry = model_entry(name)
        if entry.adapts is None or len(entry.input_shape) != 3:
            raise UserError(
                f"{source} has the network {entry.name!r}, which has no ponder map; expected a "
                "network of adaptive depth, such as resnet32_sact_cifar10 ('adaptive-nets models "
                "*act*' lists them)"
            )
        sizes = {array.shape[:2] for array in (normalisation.offset, normalisation.scale)}
        if sizes != {(1, 1)}:
            height, width = max(sizes)
            raise UserError(
                f"{source} subtracts a mean image of {height}x{width} pixels; expected a network "
                "that is normalised by channel, which takes pictures of any size"
            )
        height, width, channels = entry.input_shape
        example = jax.ShapeDtypeStruct((1, height, width, channels), np.float32)
        output = jax.eval_shape(functools.partial(full_output, module), variables, example)
        rows, columns = blocks_of(output)[-1].map_size
        stride = max(math.ceil(height / rows), math.ceil(width / columns))
        return cls(entry.name, module, variables, normalisation, channels, stride)

    @classmethod
    def untrained(cls, name: str, *, seed: int = 0) -> PonderNetwork:
        """Returns a network of the zoo with random weights, to try a command.

        Raises:
            UserError: the network is unknown, or as `of`.
        """
        entry, module = model_entry(name), create_model(name)
        init = jax.jit(
            lambda key: module.init(key, np.zeros((1, *entry.input_shape), np.float32), train=False)
        )
        normalisation = entry.normalisation.to_input_normalisation()
        return cls.of(
            module, init(jax.random.key(seed)), normalisation, name=name, source="random weights"
        )

    def check_size(self, size: tuple[int, int], *, name: str) -> None:
        """Checks that a picture is at least as large as the stride.

        Args:
            size: (H, W).
            name: name of the picture, for the message.

        Raises:
            UserError: a side is shorter.
        """
        if min(size) < self.stride:
            raise UserError(
                f"{name} is {size[1]}x{size[0]} pixels (width x height); {self.name} has a stride "
                f"of {self.stride}, expected at least {self.stride}x{self.stride}"
            )

    def plain_flops(self, size: tuple[int, int]) -> int:
        """Returns the FLOPs of the plain network for a picture of (H, W) pixels."""
        return _plain_flops(self.name, (*size, self.channels))

    @functools.cached_property
    def _forward(self) -> Callable[[Any, Any], tuple[ModelOutput, jax.Array]]:
        @jax.jit
        def forward(variables: Any, x: jax.Array) -> tuple[ModelOutput, jax.Array]:
            output = full_output(self.module, variables, x, train=False)
            return output, ponder_map(output, (x.shape[1], x.shape[2]))

        return forward

    def run(self, pixels: UInt8[np.ndarray, "N H W C"]) -> PonderResult:
        """Computes the ponder maps of a batch; a program is compiled for each shape.

        Args:
            pixels: uint8[N, H, W, C], not normalised.
        """
        x = self.normalisation.apply(pixels)
        output, maps = self._forward(self.variables, x)
        size = (x.shape[1], x.shape[2])
        flops = flops_per_image(self.module, output, image_size=size)  # pyright: ignore
        return PonderResult(np.asarray(maps, np.float32), np.asarray(flops))


@functools.cache
def _plain_flops(name: str, shape: tuple[int, int, int]) -> int:
    return 2 * count_macs(plain_form(name), input_shape=shape)


def ponder_maps(
    network: PonderNetwork,
    pictures: Sequence[UInt8[np.ndarray, "H W C"]],
    *,
    batch_size: int = 1,
    tick: Callable[[int], None] = lambda done: None,
) -> tuple[list[Float32[np.ndarray, "H W"]], Int64[np.ndarray, "N"]]:
    """Computes the ponder maps of pictures of several sizes, in batches of equal ones.

    Args:
        network: network of adaptive depth.
        pictures: N pictures, uint8[H, W, C].
        batch_size: pictures at a time; a batch is padded to it, so that one program serves a size.
        tick: called with the number of finished pictures.

    Returns:
        Maps float32[H, W] in the order of the pictures, and their FLOPs, int64[N].
    """
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        by_size.setdefault(picture.shape, []).append(i)
    maps: list[Any] = [None] * len(pictures)
    flops, done = np.zeros(len(pictures), np.int64), 0
    for rows in by_size.values():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            padded = part + part[-1:] * (batch_size - len(part))
            found = network.run(np.stack([pictures[i] for i in padded]))
            for place, i in enumerate(part):
                maps[i], flops[i] = found.maps[place], found.flops[place]
            done += len(part)
            tick(done)
    return maps, flops
