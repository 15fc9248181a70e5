"""Output of a detector, and the sizes of its maps without padding."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.models import BlockTrace, ModelOutput
from adaptive_nets.models.output import ponder_map
from adaptive_nets.runtime.errors import UserError

MapSize = tuple[int, int]


@flax.struct.dataclass
class AnchorScores:
    """Predictions of the region proposal network for M anchors.

    Attributes:
        logits: float32[N, M], logit of an object.
        deltas: float32[N, M, 4], regression targets relative to the anchor, see `encode`.
        anchors: float32[M, 4].
        inside: bool[N, M], True for anchors whose centre is in the image, not in its padding.
    """

    logits: Float[Array, "N M"]
    deltas: Float[Array, "N M 4"]
    anchors: Float[Array, "M 4"]
    inside: Bool[Array, "N M"]


@flax.struct.dataclass
class AnchorTargets:
    """Random anchors with their targets, in training.

    Attributes:
        indices: int32[N, S].
        valid: bool[N, S], False in empty slots.
        positive: bool[N, S], True for anchors that overlap a true box.
        deltas: float32[N, S, 4], targets of positives.
    """

    indices: Int[Array, "N S"]
    valid: Bool[Array, "N S"]
    positive: Bool[Array, "N S"]
    deltas: Float[Array, "N S 4"]


@flax.struct.dataclass
class RegionTargets:
    """Targets of the regions, in training.

    Attributes:
        labels: int32[N, R], class from 0 to C − 1, C for background; undefined in empty slots.
        deltas: float32[N, R, 4], targets of the regions of a class.
    """

    labels: Int[Array, "N R"]
    deltas: Float[Array, "N R 4"]


@flax.struct.dataclass
class DetectorOutput:
    """Output of `FasterRCNN` for N images with R regions each and C classes.

    Attributes:
        anchors: predictions of the region proposal network.
        regions: float32[N, R, 4], boxes in pixels of the resized image; proposals by decreasing
            score, in training a random sample of them and of the true boxes.
        region_valid: bool[N, R], False in empty slots.
        class_logits: float32[N, R, C + 1], the last for background.
        box_deltas: float32[N, R, C, 4], regression targets for each class.
        size: int32[N, 2], (height, width) of the images without padding.
        blocks: halting traces of a network of adaptive depth, else empty. The trace of the last
            block has N·R images, the regions in order; the others have N.
        anchor_targets: targets of anchors in training, else None.
        region_targets: targets of regions in training, else None.
        image_size: (H, W) of the padded images.
        map_sizes: (H, W) of the map of every block; the last is of a region.
    """

    anchors: AnchorScores
    regions: Float[Array, "N R 4"]
    region_valid: Bool[Array, "N R"]
    class_logits: Float[Array, "N R K"]
    box_deltas: Float[Array, "N R C 4"]
    size: Int[Array, "N 2"]
    blocks: tuple[BlockTrace, ...]
    anchor_targets: AnchorTargets | None
    region_targets: RegionTargets | None
    image_size: MapSize = flax.struct.field(pytree_node=False)
    map_sizes: tuple[MapSize, ...] = flax.struct.field(pytree_node=False)

    @property
    def logits(self) -> Float[Array, "N R K"]:
        """Class logits of the regions, the last for background."""
        return self.class_logits


def map_stride(image_size: MapSize, map_size: MapSize) -> int:
    """Returns the pixels per position of a map: the power of two that explains its size.

    Args:
        image_size: (H, W) of the padded image.
        map_size: (H', W') of the map.

    Raises:
        UserError: no power of two does.
    """
    stride = 1
    while stride <= max(image_size):
        if tuple(-(-side // stride) for side in image_size) == tuple(map_size):
            return stride
        stride *= 2
    raise UserError(
        f"the shared map is {map_size[0]}x{map_size[1]} for images of {image_size[0]}x"
        f"{image_size[1]}; expected a backbone whose strides are powers of two"
    )


def sizes_on_map(size: Int[Array, "N 2"], stride: int) -> Int[Array, "N 2"]:
    """Returns (rows, columns) of each image's part of a map: sides over stride, rounded up."""
    return -(-size // stride)


def inside_sizes(size: Int[Array, "N 2"], shape: MapSize) -> Bool[Array, "N H W"]:
    """Returns the mask of each image's part of a map, its top left corner.

    Args:
        size: int[N, 2], (rows, columns) of each part.
        shape: (H, W) of the map.
    """
    rows = jnp.arange(shape[0])[None] < size[:, :1]
    columns = jnp.arange(shape[1])[None] < size[:, 1:]
    return rows[:, :, None] & columns[:, None]


def image_mask(output: DetectorOutput, block: int) -> Bool[Array, "N H W"]:
    """Returns the positions of a shared block's map that are in the image, not in its padding.

    Args:
        output: output of a detector.
        block: number of the block, from 0.
    """
    shape = output.map_sizes[block]
    return inside_sizes(sizes_on_map(output.size, map_stride(output.image_size, shape)), shape)


def image_ponder_map(output: DetectorOutput) -> Float[Array, "N H W"]:
    """Computes the ponder cost of every pixel: the sum of the shared blocks' upsampled cost maps.

    Regions overlap and have no place of their own in the image, so their block is left out.

    Args:
        output: output of a detector of adaptive depth.

    Returns:
        float32[N, H, W], of the padded images; 0 in the padding.

    Raises:
        UserError: the detector is of fixed depth.
    """
    if not output.blocks:
        raise UserError(
            "the detector is of fixed depth; expected one with halting blocks, whose ponder cost "
            "has a map"
        )
    shared = ModelOutput(output.class_logits[:, :0, 0], blocks=output.blocks[:-1])
    costs = ponder_map(shared, output.image_size)
    return jnp.where(inside_sizes(output.size, output.image_size), costs, 0.0)
