"""Assignment of true boxes to candidates, and random samples of candidates of a fixed size."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from adaptive_nets.detection.boxes import covered_share, iou

CROWD_SHARE = 0.5
"""Share of a candidate inside a crowd region from which it is no negative example."""
POSITIVE, NEGATIVE, UNUSED = 1, 0, -1


class Assignment(NamedTuple):
    """True box and kind of each candidate.

    Attributes:
        kinds: int32[M], `POSITIVE`, `NEGATIVE` or `UNUSED`.
        targets: int32[M], index of the true box with the largest IoU; of meaning for positives.
    """

    kinds: Int[Array, " M"]
    targets: Int[Array, " M"]


class Sample(NamedTuple):
    """Random candidates, positives first.

    Attributes:
        indices: int32[S], distinct where valid.
        valid: bool[S], False in slots for which there was no candidate.
        positive: bool[S].
    """

    indices: Int[Array, " S"]
    valid: Bool[Array, " S"]
    positive: Bool[Array, " S"]


def assign(
    candidates: Float[Array, "M 4"],
    usable: Bool[Array, " M"],
    boxes: Float[Array, "G 4"],
    is_object: Bool[Array, " G"],
    is_crowd: Bool[Array, " G"],
    *,
    positive_iou: float,
    negative_iou: float,
    keep_best: bool,
) -> Assignment:
    """Assigns candidates to true boxes by their overlap [ren2015, section 3.1.2].

    A candidate is positive if its largest IoU is at least `positive_iou` and, with `keep_best`, if
    no other has a larger IoU with some true box. It is negative if its largest IoU is below
    `negative_iou`, and half of it or more lies in no crowd region. Others are unused.

    Args:
        candidates: float[M, 4].
        usable: bool[M]; the others, such as anchors in padding, are never positive or negative.
        boxes: float[G, 4], true boxes.
        is_object: bool[G], boxes to detect; neither padding nor crowd.
        is_crowd: bool[G], regions to ignore: crowds and difficult objects.
        positive_iou: least IoU of a positive.
        negative_iou: IoU below which a candidate is negative, at most `positive_iou`.
        keep_best: whether every true box that overlaps a candidate has a positive one.
    """
    if not boxes.shape[0]:
        kinds = jnp.where(usable, NEGATIVE, UNUSED).astype(jnp.int32)
        return Assignment(kinds, jnp.zeros(kinds.shape, jnp.int32))
    overlaps = jnp.where(is_object[None] & usable[:, None], iou(candidates, boxes), 0.0)
    largest = jnp.max(overlaps, axis=1)
    positive = largest >= positive_iou
    if keep_best:
        best = jnp.max(overlaps, axis=0, initial=0.0)
        positive |= jnp.any((overlaps == best[None]) & (best > 0)[None], axis=1)
    crowded = jnp.where(is_crowd[None], covered_share(candidates, boxes), 0.0)
    negative = (largest < negative_iou) & (jnp.max(crowded, axis=1) < CROWD_SHARE)
    kinds = jnp.where(positive & (largest > 0), POSITIVE, jnp.where(negative, NEGATIVE, UNUSED))
    kinds = jnp.where(usable, kinds, UNUSED).astype(jnp.int32)
    return Assignment(kinds, jnp.argmax(overlaps, axis=1).astype(jnp.int32))


def sample(
    key: PRNGKeyArray, kinds: Int[Array, " M"], *, count: int, positive_share: float
) -> Sample:
    """Draws candidates without replacement, at most a share of them positive.

    Negatives fill the places for which there are no positives. Every positive and every negative
    has the same chance.

    Args:
        key: PRNG key.
        kinds: int[M], see `Assignment`.
        count: S, number of slots.
        positive_share: largest share of positives.
    """
    candidates = kinds.shape[0]
    most = min(math.floor(count * positive_share), candidates)
    order = jax.random.uniform(key, (candidates,))
    slots = jnp.arange(count)

    def drawn(kind: int, number: int) -> tuple[Array, Array]:
        values, indices = lax.top_k(jnp.where(kinds == kind, order, -1.0), number)
        return indices.astype(jnp.int32), jnp.sum(values >= 0)

    def at(indices: Array, places: Array) -> Array:
        if not indices.shape[0]:
            return jnp.zeros(places.shape, jnp.int32)
        return indices[jnp.clip(places, 0, indices.shape[0] - 1)]

    positives, positive_count = drawn(POSITIVE, most)
    negatives, negative_count = drawn(NEGATIVE, min(count, candidates))
    positive = slots < positive_count
    valid = slots < jnp.minimum(positive_count + negative_count, count)
    indices = jnp.where(positive, at(positives, slots), at(negatives, slots - positive_count))
    return Sample(jnp.where(valid, indices, 0), valid, positive & valid)
