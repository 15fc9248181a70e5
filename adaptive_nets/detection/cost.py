"""FLOPs of a detector's feature extractor per image, beside those of the plain network.

The feature extractor is the backbone without its linear layer: stem and shared blocks on the image
without its padding, the last block once for each region. FLOPs = 2·MACs, by the rule of
`adaptive_nets.models.adaptive.cost` [figurnov2017].
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int64

from adaptive_nets.detection.network import FasterRCNN
from adaptive_nets.detection.output import (
    DetectorOutput,
    MapSize,
    inside_sizes,
    map_stride,
    sizes_on_map,
)
from adaptive_nets.halting import conv_flops
from adaptive_nets.models import BlockTrace, create_model
from adaptive_nets.models.adaptive.cost import BlockCost, largest_around, mask_reaches
from adaptive_nets.models.adaptive.forms import adaptive_form, plain_form
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork


@dataclasses.dataclass(frozen=True)
class FeatureCost:
    """FLOPs of the feature extractor for N images.

    Attributes:
        flops: int64[N], executed, halting heads included.
        plain_flops: int64[N], of the network of fixed depth on the same images and regions.
    """

    flops: Int64[np.ndarray, "N"]
    plain_flops: Int64[np.ndarray, "N"]

    @property
    def share(self) -> Float[np.ndarray, "N"]:
        """Executed share of the plain network's FLOPs, float64[N]."""
        return self.flops / self.plain_flops

    @property
    def mean_share(self) -> float:
        """Mean of the share over the images."""
        return float(self.share.mean())

    @property
    def share_deviation(self) -> float:
        """Standard deviation of the share over the images."""
        return float(self.share.std())

    def merge(self, other: FeatureCost) -> FeatureCost:
        """Returns the cost of the images of both."""
        pairs = ((self.flops, other.flops), (self.plain_flops, other.plain_flops))
        return FeatureCost(*(np.concatenate(pair) for pair in pairs))


def feature_cost(detector: FasterRCNN, output: DetectorOutput) -> FeatureCost:
    """Counts the FLOPs of the feature extractor for every image of a batch.

    Args:
        detector: the detector.
        output: its output, dense or skipping, in evaluation.

    Returns:
        Counts on the host.

    Raises:
        UserError: the backbone has no form of adaptive depth, whose cost is known.
    """
    network = _costed_network(detector)
    size = np.asarray(output.size, np.int64)
    flops, plain = np.zeros(len(size), np.int64), np.zeros(len(size), np.int64)
    last = len(output.map_sizes) - 1
    strides = [map_stride(output.image_size, shape) for shape in output.map_sizes[:-1]]
    on_maps = [np.asarray(sizes_on_map(output.size, stride)) for stride in strides]
    distinct, image_kinds = np.unique(size, axis=0, return_inverse=True)
    image_kinds = image_kinds.reshape(-1)
    stems, shared_costs = [], []
    for height, width in distinct.tolist():
        maps = [(-(-height // stride), -(-width // stride)) for stride in strides]
        stems.append(network.stem_flops(maps[0], (height, width)))
        shared_costs.append(network.block_costs([*maps, maps[-1]], (height, width))[:last])
    stem = np.asarray(stems, np.int64)[image_kinds] if stems else flops
    flops, plain = flops + stem, plain + stem
    for i in range(last):
        costs = [shared_costs[kind][i] for kind in image_kinds]
        rows, columns = on_maps[i].T.astype(np.int64)
        plain += _all_units(costs, rows * columns, network.stage_sizes[i])
        if output.blocks:
            flops += _executed(costs, output.blocks[i], on_maps[i])
        else:
            flops += _all_units(costs, rows * columns, network.stage_sizes[i])

    crop, region_map = detector.settings.regions.crop_size, output.map_sizes[-1]
    cost = network.block_costs([(crop, crop)] * last + [region_map], None)[last]
    valid = np.asarray(output.region_valid)
    positions = np.full(valid.size, region_map[0] * region_map[1], np.int64)
    every = _all_units([cost] * valid.size, positions, network.stage_sizes[last])
    plain += _per_image(every, valid)
    if output.blocks:
        part = np.tile(np.asarray(region_map), (valid.size, 1))
        every = _executed([cost] * valid.size, output.blocks[last], part)
    flops += _per_image(every, valid)
    return FeatureCost(flops, plain)


def _per_image(of_regions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Sums the cost of regions, without empty slots, for each image."""
    return np.where(valid, of_regions.reshape(valid.shape), 0).sum(axis=1)


def _costed_network(detector: FasterRCNN) -> AdaptiveResidualNetwork:
    """Returns a network of adaptive depth with the shapes of the backbone."""
    network: Any = detector.network
    if isinstance(network, AdaptiveResidualNetwork):
        return network
    name = adaptive_form(plain_form(detector.backbone), "sact")
    return create_model(  # pyright: ignore[reportReturnType]
        name,
        num_classes=network.num_classes,
        stage_sizes=network.stage_sizes,
        widths=network.widths,
    )


def _all_units(costs: list[BlockCost], positions: np.ndarray, units: int) -> np.ndarray:
    """Counts all units of a block without heads, int64[M], at the given numbers of positions."""
    counts = np.zeros(len(costs), np.int64)
    for i, (cost, number) in enumerate(zip(costs, positions, strict=True)):
        later = sum(
            int(conv_flops(number, (height, width), inputs, outputs))
            for height, width, inputs, outputs in cost.kernels
        )
        counts[i] = cost.first_unit + (units - 1) * later
    return counts


def _executed(costs: list[BlockCost], block: BlockTrace, size: np.ndarray) -> np.ndarray:
    """Counts the executed units and heads of a block, int64[M].

    Args:
        costs: cost of the block for each of M maps.
        block: trace of the block.
        size: int[M, 2], (rows, columns) of each map without padding.
    """
    if not costs:
        return np.zeros(0, np.int64)
    kernels = costs[0].kernels
    reaches = mask_reaches(kernels)
    distinct = tuple(sorted(set(reaches)))
    decisions, *dilated = (
        np.asarray(count, np.int64) for count in _count_positions(block, size, distinct)
    )
    positions = dict(zip(distinct, dilated, strict=True))
    counts = np.asarray([cost.first_unit for cost in costs], np.int64)
    for reach, (height, width, inputs, outputs) in zip(reaches, kernels, strict=True):
        ran = positions[reach][:, 1:].sum(axis=1)
        counts = counts + conv_flops(ran, (height, width), inputs, outputs)
    headed = decisions[:, :-1]
    counts += headed.sum(axis=1) * costs[0].head_per_decision
    return counts + headed.shape[1] * costs[0].head_per_image


@functools.partial(jax.jit, static_argnums=2)
def _count_positions(
    block: BlockTrace, size: Int[Array, "M 2"], reaches: tuple[MapSize, ...]
) -> tuple[Int[Array, "M L"], ...]:
    """Counts the positions without padding at which each unit runs; see `count_positions`."""
    count = block.weights.shape[-1]
    mask = inside_sizes(size, block.map_size)
    units = jnp.where(mask, block.broadcast_to_map(block.num_units), 0)

    def reached(number: Array) -> Array:
        axes = tuple(range(1, number.ndim))
        return jnp.stack([jnp.sum(number >= unit, axes) for unit in range(1, count + 1)], axis=-1)

    per_image = block.num_units.ndim == 1
    return reached(block.num_units if per_image else units), *(
        reached(jnp.where(mask, largest_around(units, reach), 0)) for reach in reaches
    )
