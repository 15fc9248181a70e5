"""Area, overlap and regression targets of boxes against NumPy, and their inverses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy_boxes import iou_matrix
from tolerances import close

from adaptive_nets import detection
from adaptive_nets.detection.boxes import covered_share
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
COORDINATES = st.floats(-20, 200, width=32).map(lambda value: round(value * 4) / 4)


def boxes_of(most):
    return st.integers(0, most).flatmap(
        lambda count: arrays.arrays(np.float32, (count, 4), elements=COORDINATES)
    )


@settings(max_examples=60, deadline=None)
@given(boxes_of(4), boxes_of(4))
def test_iou_of_any_boxes_equals_the_loop(a, b):
    # Of one shape, to compile once.
    found = detection.iou(*(np.resize(x, (4, 4)) * (len(x) > 0) for x in (a, b)))
    assert found.dtype == jnp.float32
    expected = iou_matrix(a.astype(np.float64), b.astype(np.float64))
    close(found[: len(a), : len(b)], expected)


def test_iou_of_thousands(rng):
    corners = rng.uniform(0, 100, (2000, 2))
    a = np.concatenate([corners, corners + rng.uniform(-2, 30, (2000, 2))], axis=1)
    found = np.asarray(detection.iou(a, a[:7]))
    np.testing.assert_allclose(found, iou_matrix(a, a[:7]), atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [0, 0, 2, 1], 0.5),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0.0),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ([1, 1, 1, 5], [1, 1, 1, 5], 0.0),
        ([3, 3, 1, 1], [0, 0, 4, 4], 0.0),
        ([3, 3, 1, 1], [3, 3, 1, 1], 0.0),
    ],
)
def test_iou_in_closed_form(a, b, expected):
    assert float(detection.iou([a], [b])[0, 0]) == pytest.approx(expected)


def test_iou_of_integers_and_of_nothing():
    assert float(detection.iou(np.array([[0, 0, 4, 4]]), np.array([[0, 0, 4, 2]]))[0, 0]) == 0.5
    nothing = np.zeros((0, 4), np.float32)
    assert detection.iou(nothing, nothing).shape == (0, 0)
    assert detection.iou(nothing, np.ones((3, 4))).shape == (0, 3)


def test_gradient_of_iou_is_finite_for_degenerate_boxes():
    boxes = jnp.array([[0, 0, 2, 2], [1, 1, 1, 1], [3, 3, 1, 1.0]])
    gradient = jax.jit(jax.grad(lambda b: jnp.sum(detection.iou(b, b))))(boxes)
    assert np.isfinite(gradient).all()


def test_area_intersection_and_share(rng):
    a, b = [[0, 0, 4, 3], [0, 0, -1, 3]], [[2, 1, 6, 9]]
    np.testing.assert_allclose(detection.area(a), [12, 0])
    np.testing.assert_allclose(detection.intersection(a, b), [[4], [0]])
    np.testing.assert_allclose(covered_share(a, b), [[4 / 12], [0]])


def test_decoding_inverts_encoding(rng):
    corners = rng.uniform(0, 50, (40, 2, 2))
    sides = rng.uniform(1, 30, (40, 2, 2))
    boxes, anchors = np.concatenate([corners, corners + sides], axis=2).transpose(1, 0, 2)
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = np.asarray(detection.encode(boxes, anchors, weights=weights))
    centre, own = boxes[:, :2] + boxes[:, 2:], anchors[:, :2] + anchors[:, 2:]
    sides, other = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    expected = np.concatenate([5 * (centre - own) / other, 5 * np.log(sides / other)], axis=1)
    np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-4)
    found = detection.decode(deltas, anchors, weights=weights)
    np.testing.assert_allclose(found, boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(detection.decode(np.zeros((40, 4)), anchors), anchors, atol=1e-4)


def test_extreme_targets_stay_finite():
    degenerate = np.array([[1, 1, 1, 1], [5, 5, 2, 2.0]])
    assert np.isfinite(detection.encode(degenerate, degenerate[::-1])).all()
    box = detection.decode(np.array([[0, 0, 1e9, 1e9]]), np.array([[0, 0, 16, 16.0]]))
    np.testing.assert_allclose(box[:, 2:] - box[:, :2], [[1000, 1000]], rtol=1e-5)


def test_clipping_to_the_image():
    boxes = [[-5, -5, 10, 20], [50, 50, 60, 60], [1, 2, 3, 4]]
    expected = [[0, 0, 10, 12], [40, 12, 40, 12], [1, 2, 3, 4]]
    np.testing.assert_allclose(detection.clip(boxes, np.array([40, 12])), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detection.iou(np.zeros((3, 5)), np.zeros((1, 4))), r"a has shape \(3, 5\)"),
        (lambda: detection.iou(np.zeros((1, 4)), np.zeros(4)), r"b has shape \(4,\); expected"),
        (lambda: detection.iou("x", np.zeros((1, 4))), "a is 'x'; expected an array"),
        (lambda: detection.iou(np.ones((1, 4), bool), np.zeros((1, 4))), "a has dtype bool"),
        (lambda: detection.encode(np.zeros((1, 4)), [[1, 2]]), "anchors has shape"),
        (
            lambda: detection.anchor_boxes((2, 2), stride=0, sizes=[1], ratios=[1]),
            "stride is 0; expected a positive integer",
        ),
        (
            lambda: detection.anchor_boxes((2, 2), stride=1, sizes=[], ratios=[1]),
            r"sizes is \[\]; expected one or more finite numbers above 0",
        ),
        (
            lambda: detection.anchor_boxes((2, 2), stride=1, sizes=[1], ratios=[-1]),
            r"ratios is \[-1\]",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_anchors_of_a_map():
    found = detection.anchor_boxes((2, 3), stride=8, sizes=(8, 16), ratios=(1, 4))
    assert found.shape == (2 * 3 * 4, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [0, 0, 8, 8])
    np.testing.assert_allclose(found[1], [4 - 8, 4 - 2, 4 + 8, 4 + 2])
    # Of the last position, the second size.
    np.testing.assert_allclose(found[-2], [12 - 8, 20 - 8, 12 + 8, 20 + 8])
    centres = (found[::4, :2] + found[::4, 2:]) / 2
    expected = [[y, x] for y in (4, 12) for x in (4, 12, 20)]
    np.testing.assert_allclose(centres, expected)
