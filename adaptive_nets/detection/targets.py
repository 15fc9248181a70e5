"""Targets of anchors and of regions in training, for one image."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from adaptive_nets.detection.assignment import assign, sample
from adaptive_nets.detection.boxes import encode
from adaptive_nets.detection.output import AnchorTargets, RegionTargets
from adaptive_nets.detection.proposals import Proposals
from adaptive_nets.detection.settings import ProposalSettings, RegionSettings

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Weights of the regression targets of regions; those of anchors are 1."""


class Truth(NamedTuple):
    """True boxes of an image.

    Attributes:
        boxes: float32[G, 4].
        labels: int32[G], −1 for padding.
        is_object: bool[G], boxes to detect.
        is_crowd: bool[G], regions to ignore.
    """

    boxes: Float[Array, "G 4"]
    labels: Int[Array, " G"]
    is_object: Bool[Array, " G"]
    is_crowd: Bool[Array, " G"]


class SampledRegions(NamedTuple):
    """Random regions of an image with their targets.

    Attributes:
        boxes: float32[R, 4]; 0 in empty slots.
        valid: bool[R], False in empty slots.
        targets: labels and regression targets.
    """

    boxes: Float[Array, "R 4"]
    valid: Bool[Array, " R"]
    targets: RegionTargets


def sample_anchors(
    key: PRNGKeyArray,
    anchors: Float[Array, "M 4"],
    inside: Bool[Array, " M"],
    truth: Truth,
    settings: ProposalSettings,
) -> AnchorTargets:
    """Draws anchors for the loss, at most a share of them positive.

    Args:
        key: PRNG key.
        anchors: float32[M, 4].
        inside: bool[M], False for anchors in padding, which are never drawn.
        truth: true boxes.
        settings: thresholds and numbers.

    Returns:
        Targets of one image, without the axis N.
    """
    assigned = assign(
        anchors,
        inside,
        truth.boxes,
        truth.is_object,
        truth.is_crowd,
        positive_iou=settings.positive_iou,
        negative_iou=settings.negative_iou,
        keep_best=True,
    )
    drawn = sample(
        key, assigned.kinds, count=settings.samples, positive_share=settings.positive_share
    )
    own = _rows(truth.boxes, assigned.targets[drawn.indices])
    deltas = encode(own, anchors[drawn.indices])
    deltas = jnp.where(drawn.positive[:, None], deltas, 0.0)
    return AnchorTargets(drawn.indices, drawn.valid, drawn.positive, deltas)


def sample_regions(
    key: PRNGKeyArray,
    proposals: Proposals,
    truth: Truth,
    settings: RegionSettings,
    *,
    num_classes: int,
) -> SampledRegions:
    """Draws regions from the proposals and the true boxes, at most a share of them positive.

    With the true boxes there are positive regions from the first step on.

    Args:
        key: PRNG key.
        proposals: proposals of the image.
        truth: true boxes.
        settings: threshold and numbers.
        num_classes: C, the label of background.

    Returns:
        Regions without gradients.
    """
    candidates = jnp.concatenate([proposals.boxes, truth.boxes])
    assigned = assign(
        candidates,
        jnp.concatenate([proposals.valid, truth.is_object]),
        truth.boxes,
        truth.is_object,
        truth.is_crowd,
        positive_iou=settings.positive_iou,
        negative_iou=settings.positive_iou,
        keep_best=False,
    )
    drawn = sample(
        key, assigned.kinds, count=settings.samples, positive_share=settings.positive_share
    )
    boxes = jnp.where(drawn.valid[:, None], candidates[drawn.indices], 0.0)
    own = assigned.targets[drawn.indices]
    labels = jnp.where(drawn.positive, _rows(truth.labels, own), num_classes)
    deltas = encode(_rows(truth.boxes, own), boxes, weights=BOX_WEIGHTS)
    deltas = jnp.where(drawn.positive[:, None], deltas, 0.0)
    found = SampledRegions(boxes, drawn.valid, RegionTargets(labels, deltas))
    return lax.stop_gradient(found)


def _rows(values: Array, indices: Array) -> Array:
    """Returns rows of an array; zeros if it has none."""
    if not values.shape[0]:
        return jnp.zeros((*indices.shape, *values.shape[1:]), values.dtype)
    return values[indices]
