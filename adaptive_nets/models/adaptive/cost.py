"""What networks of adaptive depth cost per image, from what halting did to it.

FLOPs = 2·MACs, by the rule of `adaptive_nets.halting.flops` [figurnov2017]. The first unit of a
stage runs everywhere; the first convolution of a later one on the mask dilated by 3x3, the others
on the mask; a head's 3x3 convolution on its unit's mask, its product with the mean for every image,
even after all positions have stopped. Where images are decided on as a whole, a head costs what its
unit costs: nothing once the image has stopped. Relaxed blocks run everything.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int64

from adaptive_nets.halting import conv_flops
from adaptive_nets.models.adaptive.resnet import AdaptiveCifarResNet, AdaptiveNet
from adaptive_nets.models.output import BlockTrace, ModelOutput
from adaptive_nets.runtime.errors import UserError


def flops_per_image(
    model: AdaptiveNet, output: ModelOutput, *, image_size: tuple[int, int] | None = None
) -> Int64[np.ndarray, "N"]:
    """FLOPs of each image of a batch: stem, blocks, classifier.

    Args:
        model: the network.
        output: what it, or `adaptive_inference.skip`, returned.
        image_size: (H, W) of the images; where not given, it is what the first block's map is of
            when nothing was rounded: 4 times as large for networks with an ImageNet stem.

    Returns:
        int64[N], on the host.

    Raises:
        UserError: the output is not of this network.
    """
    return block_flops(model, output).sum(axis=1) + _stem_and_classifier_flops(
        model, output, image_size
    )


def block_flops(model: AdaptiveNet, output: ModelOutput) -> Int64[np.ndarray, "N K"]:
    """FLOPs of each image in each block, heads included; without stem and classifier.

    Args:
        model: the network.
        output: what it returned.

    Returns:
        int64[N, K], on the host.

    Raises:
        UserError: the output is not of this network.
    """
    if len(output.blocks) != len(model.stage_sizes):
        raise UserError(
            f"output has {len(output.blocks)} blocks; expected {len(model.stage_sizes)}, those of "
            "the network of adaptive depth that it came from"
        )
    columns, incoming = [], model.widths[0]
    size = output.blocks[0].map_size  # the first stage does not stride
    for width, block in zip(model.widths, output.blocks, strict=True):
        cifar = isinstance(model, AdaptiveCifarResNet)
        channels = width if cifar else 4 * width
        after = block.map_size
        first = (_first_basic if cifar else _first_bottleneck)(incoming, width, size, after)
        own, read, decisions = (np.asarray(counts, np.int64) for counts in count_positions(block))
        if cifar:
            later = conv_flops(read, (3, 3), channels, channels)
            later = later + conv_flops(own, (3, 3), channels, channels)
        else:
            later = conv_flops(read, (1, 1), channels, width)
            later = later + conv_flops(own, (3, 3), width, width)
            later = later + conv_flops(own, (1, 1), width, channels)
        heads = decisions[:, :-1]
        overall = conv_flops(1, (1, 1), channels, 1)
        if model.halting.rule == "act":
            heads = heads * overall
        else:
            heads = conv_flops(heads, (3, 3), channels, 1) + overall
        columns.append(first + later[:, 1:].sum(axis=1) + heads.sum(axis=1))
        incoming, size = channels, after
    return np.stack(columns, axis=1)


@functools.partial(jax.jit, inline=True)
def count_positions(
    block: BlockTrace,
) -> tuple[Int[Array, "N L"], Int[Array, "N L"], Int[Array, "N L"]]:
    """Positions at which each unit of a block runs.

    Args:
        block: what halting did.

    Returns:
        int32[N, L] each: positions of the mask a^l, of the mask dilated by 3x3, and decisions, of
        which a position, a group of positions or an image has one.
    """
    count = block.weights.shape[-1]
    units = block.broadcast_to_map(block.num_units)
    # The mask {N >= l} dilated is {largest N around >= l}: one maximum serves all units.
    padded = jnp.pad(units, ((0, 0), (1, 1), (1, 1)))
    height, width = units.shape[1:]
    around = functools.reduce(
        jnp.maximum,
        [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)],
    )

    def reached(number: Array) -> Array:
        axes = tuple(range(1, number.ndim))
        return jnp.stack([jnp.sum(number >= unit, axes) for unit in range(1, count + 1)], axis=-1)

    return reached(units), reached(around), reached(block.num_units)


def _first_basic(incoming: int, width: int, before: tuple[int, int], after: tuple[int, int]) -> int:
    """The first unit of a stage, whose shortcut has no weights."""
    del before
    positions = math.prod(after)
    first = conv_flops(positions, (3, 3), incoming, width)
    return int(first + conv_flops(positions, (3, 3), width, width))


def _first_bottleneck(
    incoming: int, width: int, before: tuple[int, int], after: tuple[int, int]
) -> int:
    """The first unit of a stage: it strides in its second convolution, and has a projection."""
    positions = math.prod(after)
    return int(
        conv_flops(math.prod(before), (1, 1), incoming, width)
        + conv_flops(positions, (3, 3), width, width)
        + conv_flops(positions, (1, 1), width, 4 * width)
        + conv_flops(positions, (1, 1), incoming, 4 * width)
    )


def _stem_and_classifier_flops(
    model: AdaptiveNet, output: ModelOutput, image_size: tuple[int, int] | None
) -> int:
    """Stem and classifier."""
    classes = output.logits.shape[-1]
    height, width = output.blocks[0].map_size
    if isinstance(model, AdaptiveCifarResNet):
        stem = conv_flops(height * width, (3, 3), 3, model.widths[0])
        return int(stem + conv_flops(1, (1, 1), model.widths[-1], classes))
    height, width = image_size or (4 * height, 4 * width)
    stem = conv_flops(math.ceil(height / 2) * math.ceil(width / 2), (7, 7), 3, model.widths[0])
    return int(stem + conv_flops(1, (1, 1), 4 * model.widths[-1], classes))
