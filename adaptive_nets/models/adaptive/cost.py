"""Cost per image of networks of adaptive depth, from the number of units that ran.

FLOPs = 2·MACs, by the rule of `adaptive_nets.halting.flops` [figurnov2017]:

- The first unit of a block runs everywhere.
- A convolution of a later unit runs on the unit's mask, dilated by the windows that follow it.
- A head's 3x3 convolution runs on its unit's mask. Its product with the mean runs for every image,
  even after all positions have halted.
- If images halt as a whole, a head costs nothing once the image has halted.
- Relaxed blocks run everything.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int64

from adaptive_nets.halting import conv_flops
from adaptive_nets.models.adaptive.units import KernelShape, MapSize
from adaptive_nets.models.output import BlockTrace, ModelOutput


@dataclasses.dataclass(frozen=True)
class BlockCost:
    """Cost of a block of L units, in FLOPs of one image.

    Attributes:
        first_unit: FLOPs of unit 1.
        kernels: shapes of the chain of convolutions of each later unit.
        head_per_decision: FLOPs of a head for each decision (of a position, a group or an image)
            that has not halted before the head's unit.
        head_per_image: FLOPs of a head for each image, halted or not.
    """

    first_unit: int
    kernels: tuple[KernelShape, ...]
    head_per_decision: int
    head_per_image: int = 0


def head_flops(rule: str, channels: int) -> tuple[int, int]:
    """Returns the FLOPs of a halting head for each decision and for each image.

    Args:
        rule: halting rule; "act" decides per image.
        channels: channels of the head's input.
    """
    overall = int(conv_flops(1, (1, 1), channels, 1))
    local = int(conv_flops(1, (3, 3), channels, 1))
    return (overall, 0) if rule == "act" else (local, overall)


class CostedNetwork(Protocol):
    """Network whose cost can be counted."""

    def block_costs(
        self, map_sizes: Sequence[MapSize], image_size: MapSize | None
    ) -> tuple[BlockCost, ...]:
        """Returns the cost of each block.

        Args:
            map_sizes: (H, W) of each block's map.
            image_size: (H, W) of the images, if known.

        Raises:
            UserError: the network has another number of blocks.
        """
        ...

    def fixed_flops(self, map_sizes: Sequence[MapSize], image_size: MapSize | None) -> int:
        """Returns the FLOPs of one image outside of the blocks; see `block_costs`."""
        ...


def flops_per_image(
    model: CostedNetwork, output: ModelOutput, *, image_size: MapSize | None = None
) -> Int64[np.ndarray, "N"]:
    """Counts the FLOPs of each image of a batch: stem, blocks, classifier.

    Args:
        model: network of adaptive depth.
        output: output of the network, dense or skipping.
        image_size: (H, W) of the images; if None, a residual network assumes the largest size that
            gives the first block's map, which is 4 times the map for an ImageNet stem.

    Returns:
        int64[N], on the host.

    Raises:
        UserError: the output is not of this network.
    """
    blocks = block_flops(model, output, image_size=image_size).sum(axis=1)
    return blocks + model.fixed_flops(_map_sizes(output), image_size)


def plain_flops(
    model: CostedNetwork, output: ModelOutput, *, image_size: MapSize | None = None
) -> int:
    """Counts the FLOPs per image of the plain network: all units, no halting heads.

    Args:
        model: network of adaptive depth.
        output: output of the network, or its shapes.
        image_size: (H, W) of the images, see `flops_per_image`.

    Raises:
        UserError: the output is not of this network.
    """
    costs = model.block_costs(_map_sizes(output), image_size)
    total = model.fixed_flops(_map_sizes(output), image_size)
    for cost, block in zip(costs, output.blocks, strict=True):
        positions, later = math.prod(block.map_size), block.weights.shape[-1] - 1
        for height, width, inputs, outputs in cost.kernels:
            total += later * int(conv_flops(positions, (height, width), inputs, outputs))
        total += cost.first_unit
    return total


def block_flops(
    model: CostedNetwork, output: ModelOutput, *, image_size: MapSize | None = None
) -> Int64[np.ndarray, "N K"]:
    """Counts the FLOPs of each image in each block, heads included, without stem and classifier.

    Args:
        model: network of adaptive depth.
        output: output of the network, dense or skipping.
        image_size: (H, W) of the images, see `flops_per_image`.

    Returns:
        int64[N, K], on the host.

    Raises:
        UserError: the output is not of this network.
    """
    costs = model.block_costs(_map_sizes(output), image_size)
    columns = []
    for cost, block in zip(costs, output.blocks, strict=True):
        reaches = mask_reaches(cost.kernels)
        distinct = tuple(sorted(set(reaches)))
        counted = (np.asarray(c, np.int64) for c in count_positions(block, distinct))
        decisions, *dilated = counted
        positions = dict(zip(distinct, dilated, strict=True))
        later = sum(
            conv_flops(positions[reach][:, 1:].sum(axis=1), (height, width), inputs, outputs)
            for reach, (height, width, inputs, outputs) in zip(reaches, cost.kernels, strict=True)
        )
        headed = decisions[:, :-1]
        heads = headed.sum(axis=1) * cost.head_per_decision
        heads = heads + headed.shape[1] * cost.head_per_image
        columns.append(cost.first_unit + later + heads)
    return np.stack(columns, axis=1)


@functools.partial(jax.jit, inline=True, static_argnums=1)
def count_positions(
    block: BlockTrace, reaches: tuple[tuple[int, int], ...]
) -> tuple[Int[Array, "N L"], ...]:
    """Counts the positions at which each unit of a block runs.

    Args:
        block: trace of the block.
        reaches: (rows, columns) by which the mask a^l is dilated on each side.

    Returns:
        int32[N, L] each: running decisions (one for a position, a group of positions or an image),
        then positions of the dilated mask for every reach.
    """
    count = block.weights.shape[-1]
    units = block.broadcast_to_map(block.num_units)

    def reached(number: Array) -> Array:
        axes = tuple(range(1, number.ndim))
        return jnp.stack([jnp.sum(number >= unit, axes) for unit in range(1, count + 1)], axis=-1)

    return reached(block.num_units), *(reached(largest_around(units, r)) for r in reaches)


def largest_around(units: Int[Array, "N H W"], reach: tuple[int, int]) -> Int[Array, "N H W"]:
    """Computes the maximum over a window: dilating {N >= l} gives {maximum >= l}, for every l."""
    rows, columns = reach
    padded = jnp.pad(units, ((0, 0), (rows, rows), (columns, columns)))
    height, width = units.shape[1:]
    return functools.reduce(
        jnp.maximum,
        [
            padded[:, i : i + height, j : j + width]
            for i in range(2 * rows + 1)
            for j in range(2 * columns + 1)
        ],
    )


def mask_reaches(kernels: Sequence[KernelShape]) -> list[tuple[int, int]]:
    """Returns the dilation of each convolution's mask: the sum of the later windows' half sizes."""
    reaches, rows, columns = [], 0, 0
    for height, width, _, _ in reversed(kernels):
        reaches.insert(0, (rows, columns))
        rows, columns = rows + height // 2, columns + width // 2
    return reaches


def _map_sizes(output: ModelOutput) -> list[MapSize]:
    return [block.map_size for block in output.blocks]
