"""Greedy suppression against NumPy loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy_boxes import fast_suppressed, suppressed

from adaptive_nets import detection

pytestmark = pytest.mark.core

# Whole numbers, so that float32 and float64 agree on either side of a threshold.
CASES = st.integers(0, 12).flatmap(
    lambda count: st.tuples(
        arrays.arrays(np.float32, (count, 4), elements=st.integers(-2, 9).map(float)),
        arrays.arrays(np.float32, (count,), elements=st.integers(0, 5).map(float)),
    )
)
compiled = jax.jit(detection.nms, static_argnames=("limit",))


def drawn(rng, count):
    corners = rng.integers(0, 400, (count, 2))
    sides = rng.integers(-3, 60, (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return boxes, rng.integers(0, 50, count).astype(np.float32)


def padded(boxes, scores, size):
    missing = size - len(boxes)
    return (
        np.pad(boxes, ((0, missing), (0, 0))),
        np.pad(scores, (0, missing), constant_values=-np.inf),
    )


@settings(max_examples=80, deadline=None)
@given(CASES, st.sampled_from([0.0, 0.3, 0.5, 0.73, 1.0]))
def test_any_boxes_and_ties_give_the_kept_boxes_of_the_loop(case, threshold):
    boxes, scores = padded(*case, 12)
    indices, valid = compiled(boxes, scores, iou_threshold=threshold, limit=5)
    assert indices.shape == valid.shape == (5,)
    assert np.asarray(indices)[np.asarray(valid)].tolist() == suppressed(*case, threshold, 5)
    assert not np.any(np.diff(np.asarray(valid).astype(int)) > 0)
    assert np.all(np.asarray(indices)[~np.asarray(valid)] == 0)


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (1, 4), (37, 100), (3000, 200), (3000, 3000)])
def test_one_some_and_thousands(rng, count, limit):
    boxes, scores = drawn(rng, count)
    indices, valid = compiled(boxes, scores, iou_threshold=0.37, limit=limit)
    assert np.asarray(indices)[np.asarray(valid)].tolist() == fast_suppressed(
        boxes, scores, 0.37, limit
    )


def test_no_boxes():
    kept = detection.nms(np.zeros((0, 4)), np.zeros(0), iou_threshold=0.5, limit=3)
    assert kept.indices.tolist() == [0, 0, 0]
    assert not kept.valid.any()


def test_degenerate_boxes_neither_remove_nor_are_removed():
    boxes = np.array([[0, 0, 4, 4], [1, 1, 1, 3], [1, 1, 1, 3], [3, 3, 1, 1], [0, 0, 4, 4.0]])
    indices, valid = detection.nms(boxes, [5, 4, 3, 2, 1.0], iou_threshold=0, limit=9)
    assert indices[valid].tolist() == [0, 1, 2, 3]


def test_scores_without_value_are_never_kept():
    boxes = np.array([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5.0]])
    indices, valid = detection.nms(boxes, [np.nan, -np.inf, -7.0], iou_threshold=0.5, limit=3)
    assert indices[valid].tolist() == [2]


def test_a_batch_equals_its_images(rng):
    cases = [drawn(rng, 30) for _ in range(3)]
    boxes, scores = (jnp.stack([case[i] for case in cases]) for i in range(2))
    batched = jax.vmap(lambda b, s: detection.nms(b, s, iou_threshold=0.4, limit=8))(boxes, scores)
    for i, case in enumerate(cases):
        alone = compiled(*case, iou_threshold=0.4, limit=8)
        np.testing.assert_array_equal(batched.indices[i], alone.indices)
        np.testing.assert_array_equal(batched.valid[i], alone.valid)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros((2, 4)), np.zeros(3)), {}, "scores has shape (3,); expected (2,)"),
        ((np.zeros((2, 4)), np.zeros((2, 1))), {}, "scores has shape (2, 1); expected [R]"),
        ((np.zeros((2, 3)), np.zeros(2)), {}, "boxes has shape (2, 3); expected [R, 4]"),
        ((np.zeros((2, 4)), np.zeros(2)), {"iou_threshold": 1.5}, "iou_threshold is 1.5"),
        ((np.zeros((2, 4)), np.zeros(2)), {"iou_threshold": "a"}, "iou_threshold is 'a'"),
        ((np.zeros((2, 4)), np.zeros(2)), {"limit": 0}, "limit is 0; expected a positive integer"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(complains, arguments, options, message):
    options = {"iou_threshold": 0.5, "limit": 1, **options}
    complains(lambda: detection.nms(*arguments, **options), message)
