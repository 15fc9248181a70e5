"""Assignment of true boxes against a loop, and properties of random samples."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpy_boxes import box_area, iou_matrix

from adaptive_nets.detection.assignment import NEGATIVE, POSITIVE, UNUSED, assign, sample

pytestmark = pytest.mark.core
compiled = jax.jit(assign, static_argnames=("positive_iou", "negative_iou", "keep_best"))
drawn = jax.jit(sample, static_argnames=("count", "positive_share"))


def kinds_by_loop(candidates, usable, boxes, is_object, is_crowd, positive, negative, keep_best):
    overlaps = iou_matrix(candidates, boxes) * is_object[None] * usable[:, None]
    kinds = []
    for i, candidate in enumerate(candidates):
        largest = overlaps[i].max(initial=0.0)
        best = keep_best and any(
            overlaps[i, g] > 0 and overlaps[i, g] == overlaps[:, g].max() for g in range(len(boxes))
        )
        covered = 0.0
        for box in boxes[is_crowd]:
            sides = np.minimum(candidate[2:], box[2:]) - np.maximum(candidate[:2], box[:2])
            covered = max(covered, np.prod(np.maximum(sides, 0)) / box_area(candidate))
        if not usable[i]:
            kinds.append(UNUSED)
        elif best or (largest >= positive and largest > 0):
            kinds.append(POSITIVE)
        else:
            kinds.append(NEGATIVE if largest < negative and covered < 0.5 else UNUSED)
    return kinds, overlaps


@pytest.mark.parametrize("keep_best", [True, False])
def test_kinds_and_targets_equal_the_loop(rng, keep_best):
    for _ in range(8):
        corners = rng.integers(0, 20, (30, 2))
        candidates = np.concatenate([corners, corners + rng.integers(2, 16, (30, 2))], axis=1)
        boxes = candidates[rng.choice(30, 5, replace=False)] + rng.integers(-2, 3, (5, 4))
        usable = rng.random(30) < 0.8
        kind = rng.integers(0, 3, 5)
        is_object, is_crowd = kind == 0, kind == 1
        arrays = (candidates.astype(float), usable, boxes.astype(float), is_object, is_crowd)
        found = compiled(*arrays, positive_iou=0.6, negative_iou=0.3, keep_best=keep_best)
        kinds, overlaps = kinds_by_loop(*arrays, 0.6, 0.3, keep_best)
        assert found.kinds.tolist() == kinds
        positive = np.asarray(found.kinds) == POSITIVE
        chosen = overlaps[np.arange(30), np.asarray(found.targets)]
        np.testing.assert_allclose(chosen[positive], overlaps.max(axis=1)[positive], atol=1e-6)


def test_without_true_boxes_all_usable_candidates_are_negative():
    usable = np.array([True, False])
    nothing = np.zeros(0, bool)
    arrays = (np.ones((2, 4)), usable, np.zeros((0, 4)), nothing, nothing)
    found = assign(*arrays, positive_iou=0.5, negative_iou=0.5, keep_best=True)
    assert found.kinds.tolist() == [NEGATIVE, UNUSED]


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(50, 50, (5, 15)), (2, 50, (2, 18)), (50, 3, (5, 3)), (0, 0, (0, 0)), (3, 0, (3, 0))],
)
def test_samples_have_a_fixed_size_and_a_largest_share(key, rng, positives, negatives, expected):
    kinds = rng.permutation([POSITIVE] * positives + [NEGATIVE] * negatives + [UNUSED] * 7)
    kinds = np.concatenate([kinds, np.full(110 - len(kinds), UNUSED)])
    found = drawn(key, kinds, count=20, positive_share=0.25)
    valid, positive = np.asarray(found.valid), np.asarray(found.positive)
    indices = np.asarray(found.indices)
    assert valid.shape == (20,)
    assert (positive.sum(), (valid & ~positive).sum()) == expected
    assert len(set(indices[valid])) == valid.sum()
    assert np.all(kinds[indices[positive]] == POSITIVE)
    assert np.all(kinds[indices[valid & ~positive]] == NEGATIVE)


def test_samples_depend_on_the_key_and_are_even(key):
    kinds = np.array([POSITIVE] * 4 + [NEGATIVE] * 12)
    draw = jax.jit(jax.vmap(lambda k: sample(k, kinds, count=6, positive_share=0.5).indices))
    found = np.asarray(draw(jax.random.split(key, 600)))
    counts = np.bincount(found.ravel(), minlength=16) / 600
    np.testing.assert_allclose(counts, [3 / 4] * 4 + [3 / 12] * 12, atol=0.08)


def test_fewer_candidates_than_slots(key):
    found = drawn(key, np.array([POSITIVE, NEGATIVE]), count=5, positive_share=0.5)
    assert found.valid.tolist() == [True, True, False, False, False]
    assert not drawn(key, np.zeros(0, int), count=3, positive_share=0.5).valid.any()
