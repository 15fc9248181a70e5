"""Loss of a detector: anchors, regions and ponder cost."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from adaptive_nets.detection.output import DetectorOutput, image_mask
from adaptive_nets.models import BlockTrace
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.losses import cross_entropy

BETA = 1 / 9
"""Absolute error at which the smooth L1 loss turns from quadratic to linear."""


@flax.struct.dataclass
class DetectionLoss:
    """Terms of the loss; `total` is minimised.

    Attributes:
        anchor_classes: binary cross-entropy of the sampled anchors, mean in nats.
        anchor_boxes: smooth L1 loss of positive anchors, over the number of sampled anchors.
        region_classes: cross-entropy of the sampled regions, mean in nats.
        region_boxes: smooth L1 loss of regions of a class, over the number of sampled regions.
        ponder_cost: Σ over blocks of the mean ponder cost ρ, see `mean_ponder_costs`; 0 for a
            detector of fixed depth.
        total: the sum of the first four + τ · ponder cost.
    """

    anchor_classes: Float[Array, ""]
    anchor_boxes: Float[Array, ""]
    region_classes: Float[Array, ""]
    region_boxes: Float[Array, ""]
    ponder_cost: Float[Array, ""]
    total: Float[Array, ""]


def smooth_l1(
    errors: Float[Array, "..."], *, beta: float | Float[Array, ""] = BETA
) -> Float[Array, "..."]:
    """Computes the smooth L1 loss [girshick2015]: e²/(2β) if |e| < β, else |e| − β/2.

    Args:
        errors: float[...].
        beta: β, above 0.
    """
    size = jnp.abs(errors)
    return jnp.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def detection_loss(output: DetectorOutput, *, tau: float | Float[Array, ""] = 0.0) -> DetectionLoss:
    """Computes the loss of a training batch [ren2015, equation 1] with a ponder cost.

    The means are over all sampled anchors, or regions, of the batch.

    Args:
        output: output of a detector with ``train=True``.
        tau: τ, weight of the ponder cost; may be traced.

    Raises:
        UserError: the output has no targets.
    """
    anchors, regions = output.anchor_targets, output.region_targets
    if anchors is None or regions is None:
        raise UserError(
            "the output has no targets; expected one of a detector that ran with train=True"
        )
    logits = jnp.take_along_axis(output.anchors.logits, anchors.indices, axis=1)
    deltas = jnp.take_along_axis(output.anchors.deltas, anchors.indices[..., None], axis=1)
    anchor_classes = _mean_where(
        anchors.valid,
        optax.sigmoid_binary_cross_entropy(logits, anchors.positive.astype(logits.dtype)),
    )
    anchor_errors = jnp.sum(smooth_l1(deltas - anchors.deltas), axis=-1)
    anchor_boxes = _mean_where(anchors.valid, jnp.where(anchors.positive, anchor_errors, 0.0))

    classes = output.box_deltas.shape[2]
    flat_labels = regions.labels.reshape(-1)
    entropy = cross_entropy(output.class_logits.reshape(-1, classes + 1), flat_labels)
    region_classes = _mean_where(output.region_valid, entropy.reshape(regions.labels.shape))
    of_class = jax.nn.one_hot(regions.labels, classes)
    own = jnp.sum(output.box_deltas * of_class[..., None], axis=2)
    has_class = output.region_valid & (regions.labels < classes)
    region_errors = jnp.sum(smooth_l1(own - regions.deltas), axis=-1)
    region_boxes = _mean_where(output.region_valid, jnp.where(has_class, region_errors, 0.0))

    ponder_cost = sum(mean_ponder_costs(output), start=jnp.float32(0))
    terms = anchor_classes + anchor_boxes + region_classes + region_boxes
    return DetectionLoss(
        anchor_classes=anchor_classes,
        anchor_boxes=anchor_boxes,
        region_classes=region_classes,
        region_boxes=region_boxes,
        ponder_cost=ponder_cost,
        total=terms + tau * ponder_cost,
    )


def mean_ponder_costs(output: DetectorOutput) -> list[Float[Array, ""]]:
    """Computes the mean ponder cost ρ of each block; empty for a detector of fixed depth.

    For the shared blocks the mean is over the positions of the images, with ACT over the images;
    for the last block over the positions of the regions, with ACT over the regions. Padding and
    empty slots are excluded.

    Args:
        output: output of a detector.
    """
    costs = []
    for i, block in enumerate(output.blocks):
        in_regions = i == len(output.blocks) - 1
        mask = output.region_valid.reshape(-1) if in_regions else image_mask(output, i)
        costs.append(_mean_where(_spread(mask, block), block.ponder_cost))
    return costs


def _spread(mask: Bool[Array, "..."], block: BlockTrace) -> Bool[Array, "N *V"]:
    """Brings a mask of images or of positions to the shape of a block's decisions."""
    shape = block.ponder_cost.shape
    if mask.shape == shape:
        return mask
    if len(shape) == 1:
        return jnp.any(mask, axis=(1, 2))
    return jnp.broadcast_to(mask[:, None, None], shape)


def _mean_where(mask: Array, values: Array) -> Float[Array, ""]:
    """Returns the mean of the values where the mask is True; 0 if it is nowhere."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
