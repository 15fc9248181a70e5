"""Detections of an output against a loop over images and classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import output_by_hand
from numpy_boxes import suppressed

from adaptive_nets import detection

pytestmark = pytest.mark.core
compiled = jax.jit(detection.detections, static_argnames=("limit", "score_threshold"))


def by_loop(output, n, *, score_threshold=0.1, iou_threshold=0.4):
    rows = []
    logits = np.asarray(output.class_logits[n], np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    regions = np.asarray(output.regions[n], np.float64)
    for label in range(logits.shape[1] - 1):
        deltas = np.asarray(output.box_deltas[n, :, label], np.float64) / [10, 10, 5, 5]
        sides = regions[:, 2:] - regions[:, :2]
        centre = (regions[:, 2:] + regions[:, :2]) / 2 + deltas[:, :2] * sides
        half = sides * np.exp(deltas[:, 2:]) / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        boxes = np.clip(boxes, 0, np.tile(np.asarray(output.size[n]), 2))
        chosen = [r for r in range(len(boxes)) if output.region_valid[n, r]
                  and probs[r, label] >= score_threshold]  # fmt: skip
        kept = suppressed(boxes[chosen], probs[chosen, label], iou_threshold, 99)
        rows += [(probs[chosen[i], label], label, boxes[chosen[i]]) for i in kept]
    return sorted(rows, key=lambda row: -row[0])


@pytest.mark.parametrize("limit", [3, 40])
def test_detections_equal_the_loop(rng, limit):
    output = output_by_hand(rng, regions=12)
    found = compiled(output, score_threshold=0.1, iou_threshold=0.4, limit=limit)
    assert found.boxes.shape == (2, limit, 4)
    for n in range(2):
        expected = by_loop(output, n)[:limit]
        count = len(expected)
        assert found.valid[n].tolist() == [True] * count + [False] * (limit - count)
        assert found.labels[n].tolist() == [row[1] for row in expected] + [-1] * (limit - count)
        np.testing.assert_allclose(found.scores[n, :count], [r[0] for r in expected], rtol=1e-5)
        np.testing.assert_allclose(found.boxes[n, :count], [r[2] for r in expected], atol=1e-4)
        assert not np.any(found.boxes[n, count:])


def test_nothing_is_found_without_regions(rng):
    output = output_by_hand(rng, region_valid=jnp.zeros((2, 5), bool))
    found = compiled(output, limit=4)
    assert not found.valid.any()
    assert np.all(np.asarray(found.labels) == -1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": -1}, "score_threshold is -1; expected a number from 0 to 1"),
        ({"iou_threshold": 2}, "iou_threshold is 2"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(rng, complains, options, message):
    complains(lambda: detection.detections(output_by_hand(rng), **options), message)
