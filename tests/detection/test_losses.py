"""Terms of the loss and the ponder cost against NumPy, with empty slots and padding."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from detectors import output_by_hand

from adaptive_nets import detection
from adaptive_nets.detection.losses import smooth_l1
from adaptive_nets.detection.output import AnchorTargets, RegionTargets
from adaptive_nets.models import BlockTrace

pytestmark = pytest.mark.core


def with_targets(rng, **others):
    anchors = AnchorTargets(
        indices=jnp.asarray(rng.integers(0, 7, (2, 4))),
        valid=jnp.asarray([[True, True, True, False], [True, True, False, False]]),
        positive=jnp.asarray([[True, True, False, False], [True, False, False, False]]),
        deltas=jnp.asarray(rng.standard_normal((2, 4, 4)), jnp.float32),
    )
    regions = RegionTargets(
        labels=jnp.asarray([[0, 2, 3, 3, 1], [3, 3, 3, 2, 0]], jnp.int32),
        deltas=jnp.asarray(rng.standard_normal((2, 5, 4)), jnp.float32),
    )
    return output_by_hand(rng, anchor_targets=anchors, region_targets=regions, **others)


def smooth(errors):
    size = np.abs(errors)
    return np.where(size < 1 / 9, size**2 * 4.5, size - 1 / 18).sum()


def trace(costs, size):
    costs = jnp.asarray(costs, jnp.float32)
    units, more = jnp.ones(costs.shape, jnp.int32), jnp.zeros((*costs.shape, 2))
    return BlockTrace(costs, units, more, more, more, jnp.zeros(costs.shape[0]), size)


def test_terms_equal_the_loop(rng):
    output = with_targets(rng)
    found = detection.detection_loss(output)
    targets, scores = output.anchor_targets, output.anchors
    entropy = boxes = count = 0.0
    for n in range(2):
        for s in np.flatnonzero(targets.valid[n]):
            i, positive = int(targets.indices[n, s]), bool(targets.positive[n, s])
            logit = float(scores.logits[n, i])
            entropy += np.log1p(np.exp(-logit if positive else logit))
            if positive:
                boxes += smooth(np.asarray(scores.deltas[n, i] - targets.deltas[n, s]))
            count += 1
    assert float(found.anchor_classes) == pytest.approx(entropy / count, rel=1e-5)
    assert float(found.anchor_boxes) == pytest.approx(boxes / count, rel=1e-5)

    entropy = boxes = count = 0.0
    for n, r in zip(*np.nonzero(output.region_valid), strict=True):
        logits = np.asarray(output.class_logits[n, r], np.float64)
        label = int(output.region_targets.labels[n, r])
        entropy += np.log(np.exp(logits).sum()) - logits[label]
        if label < 3:
            errors = output.box_deltas[n, r, label] - output.region_targets.deltas[n, r]
            boxes += smooth(np.asarray(errors))
        count += 1
    assert float(found.region_classes) == pytest.approx(entropy / count, rel=1e-5)
    assert float(found.region_boxes) == pytest.approx(boxes / count, rel=1e-5)
    terms = found.anchor_classes + found.anchor_boxes + found.region_classes + found.region_boxes
    assert float(found.total) == pytest.approx(float(terms))
    assert float(found.ponder_cost) == 0


def test_smooth_l1_in_closed_form():
    np.testing.assert_allclose(smooth_l1(jnp.array([0.0, 0.5, -3.0]), beta=1.0), [0, 0.125, 2.5])


def test_the_ponder_cost_excludes_padding_and_empty_slots(rng):
    maps = [rng.uniform(1, 4, (2, 32, 48)), rng.uniform(1, 4, (2, 16, 24))]
    regions = rng.uniform(1, 4, (10, 2, 2))
    blocks = tuple(trace(costs, costs.shape[1:]) for costs in (*maps, regions))
    size = np.array([[32, 48], [21, 31]], np.int32)
    output = with_targets(rng, blocks=blocks, size=jnp.asarray(size))
    expected = []
    for costs, stride in zip(maps, (1, 2), strict=True):
        parts = [c[: -(-h // stride), : -(-w // stride)].ravel()
                 for c, (h, w) in zip(costs, size, strict=True)]  # fmt: skip
        expected.append(np.concatenate(parts).mean())
    expected.append(regions[np.asarray(output.region_valid).ravel()].mean())
    found = detection.mean_ponder_costs(output)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    loss = detection.detection_loss(output, tau=0.1)
    plain = detection.detection_loss(output)
    assert float(loss.total - plain.total) == pytest.approx(0.1 * sum(expected), rel=1e-4)


def test_the_ponder_cost_of_decisions_per_image(rng):
    costs = [rng.uniform(1, 4, n) for n in (2, 2, 10)]
    sizes = ((32, 48), (16, 24), (2, 2))
    blocks = tuple(trace(c, size) for c, size in zip(costs, sizes, strict=True))
    output = output_by_hand(rng, blocks=blocks)
    valid = np.asarray(output.region_valid).ravel()
    expected = [costs[0].mean(), costs[1].mean(), costs[2][valid].mean()]
    np.testing.assert_allclose(detection.mean_ponder_costs(output), expected, rtol=1e-5)


def test_without_regions_the_loss_is_zero_not_nan(rng):
    output = with_targets(rng, region_valid=jnp.zeros((2, 5), bool))
    assert float(detection.detection_loss(output).region_classes) == 0


def test_an_output_of_evaluation_has_no_loss(rng, complains):
    complains(lambda: detection.detection_loss(output_by_hand(rng)), "train=True")


def test_the_map_of_the_ponder_cost_is_zero_in_padding(rng, complains):
    ones = (np.ones((2, 32, 48)), np.ones((2, 16, 24)), np.ones((10, 2, 2)))
    blocks = tuple(trace(costs, costs.shape[1:]) for costs in ones)
    size = jnp.asarray([[32, 48], [21, 31]], jnp.int32)
    found = np.asarray(detection.image_ponder_map(output_by_hand(rng, blocks=blocks, size=size)))
    expected = np.zeros((2, 32, 48))
    expected[0], expected[1, :21, :31] = 2, 2
    np.testing.assert_array_equal(found, expected)
    complains(lambda: detection.image_ponder_map(output_by_hand(rng)), "of fixed depth")


def test_ponder_cost_inside_and_outside_of_boxes(rng, complains):
    maps = rng.uniform(1, 9, (3, 10, 12)).astype(np.float32)
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[0, 0], boxes[0, 1], boxes[2, 0] = [1, 2, 4, 7.4], [3, 3, 5.6, 20], [0, 0, 10, 12]
    is_box = np.array([[True, True], [False, False], [True, False]])
    size = np.array([[8, 11], [10, 12], [10, 12]])
    found = detection.ponder_contrast(maps, boxes, is_box, size)
    inside = np.zeros((8, 11), bool)
    # The centre of column 7 is right of 7.4, that of row 5 above 5.6.
    inside[1:4, 2:7], inside[3:6, 3:] = True, True
    image = maps[0, :8, :11]
    assert float(found.inside[0]) == pytest.approx(image[inside].mean(), rel=1e-5)
    assert float(found.outside[0]) == pytest.approx(image[~inside].mean(), rel=1e-5)
    assert float(found.ratio[0]) == pytest.approx(image[inside].mean() / image[~inside].mean())
    assert np.isnan(found.inside[1])
    assert np.isnan(found.outside[2])
    complains(lambda: detection.ponder_contrast(maps, boxes[:2], is_box, size), "boxes has shape")
    complains(lambda: detection.ponder_contrast(maps[0], boxes, is_box, size), "maps has shape")
    complains(lambda: detection.ponder_contrast(maps, boxes, is_box[0], size), "is_box has shape")
    complains(lambda: detection.ponder_contrast(maps, boxes, is_box, size[0]), "size has shape")
