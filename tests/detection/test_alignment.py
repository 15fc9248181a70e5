"""Region-of-interest alignment against a NumPy loop, closed forms and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy_boxes import aligned_regions

from adaptive_nets import detection

pytestmark = pytest.mark.core
FEATURE = np.random.default_rng(3).standard_normal((5, 7, 2)).astype(np.float32)
COORDINATES = st.floats(-30, 60, width=32).map(lambda value: round(value * 8) / 8 + 0.03)


def align(feature, boxes, size=(2, 3), scale=0.25, ratio=2, **options):
    return detection.roi_align(
        feature, boxes, output_size=size, spatial_scale=scale, sampling_ratio=ratio, **options
    )


compiled = jax.jit(align, static_argnames=("size", "scale", "ratio", "aligned"))


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.float32, (3, 4), elements=COORDINATES), st.booleans())
def test_any_boxes_equal_the_loop(boxes, aligned):
    found = compiled(FEATURE, boxes, aligned=aligned)
    expected = aligned_regions(FEATURE, boxes, (2, 3), 0.25, 2, aligned)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"), [((1, 1), 1.0, 1), ((7, 7), 0.5, 3), ((3, 1), 1 / 16, 2)]
)
def test_sizes_scales_and_samples(rng, size, scale, ratio):
    corners = rng.uniform(-2, 5, (4, 2)) / scale
    boxes = np.concatenate([corners, corners + rng.uniform(0, 6, (4, 2)) / scale], axis=1)
    expected = aligned_regions(FEATURE, boxes.astype(np.float32), size, scale, ratio)
    np.testing.assert_allclose(align(FEATURE, boxes, size, scale, ratio), expected, atol=1e-4)


def test_the_value_of_a_position_lies_at_its_centre():
    rows, columns = np.mgrid[:6, :8].astype(np.float32) + 0.5
    ramp = np.stack([rows, columns], axis=-1)
    # Of a ramp, every bin holds the coordinates of its centre, in positions.
    found = align(ramp, [[4, 8, 20, 24]], size=(4, 4), scale=0.25, ratio=3)[0]
    centres = [1.5, 2.5, 3.5, 4.5]
    np.testing.assert_allclose(found[:, 0, 0], centres, atol=1e-5)
    np.testing.assert_allclose(found[0, :, 1], [2.5, 3.5, 4.5, 5.5], atol=1e-5)


def test_a_box_of_the_whole_map_returns_the_map():
    found = align(FEATURE, [[0, 0, 5, 7]], size=(5, 7), scale=1.0, ratio=1)
    np.testing.assert_allclose(found[0], FEATURE, atol=1e-5)


def test_boxes_outside_are_zero_and_no_boxes_give_nothing():
    outside = [[100, 100, 200, 200], [-200, 0, -100, 20], [np.nan] * 4, [np.inf] * 4]
    assert not np.any(align(FEATURE, outside))
    assert align(FEATURE, np.zeros((0, 4)), size=4).shape == (0, 4, 4, 2)


def test_degenerate_boxes_sample_their_point():
    point = align(FEATURE, [[10, 14, 10, 14]], size=1)
    expected = aligned_regions(FEATURE, [[10, 14, 10, 14]], (1, 1), 0.25, 1)
    np.testing.assert_allclose(point, expected, atol=1e-6)


def test_gradient_in_features_spreads_each_region(key):
    boxes = jnp.array([[2.0, 3.0, 15.0, 22.0], [-9.0, 0.0, 30.0, 8.0], [5.0, 5.0, 5.0, 5.0]])
    direction = jax.random.normal(key, FEATURE.shape)
    cotangent = jax.random.normal(jax.random.fold_in(key, 1), (3, 2, 3, 2))
    loss = jax.jit(jax.grad(lambda f, b: jnp.sum(align(f, b) * cotangent), (0, 1)))
    gradient, of_boxes = loss(jnp.asarray(FEATURE), boxes)
    # Linear in the features, so the adjoint identity is exact.
    left = np.sum(np.asarray(gradient, np.float64) * np.asarray(direction, np.float64))
    right = np.sum(np.asarray(align(direction, boxes) * cotangent, np.float64))
    assert left == pytest.approx(right, rel=1e-4)
    assert np.isfinite(gradient).all()
    assert np.isfinite(of_boxes).all()


def test_thousands_of_boxes_and_other_dtypes(rng):
    corners = rng.uniform(-5, 25, (2000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(-1, 20, (2000, 2))], axis=1)
    found = compiled(FEATURE, boxes)
    chosen = [0, 999, 1999]
    expected = aligned_regions(FEATURE, boxes[chosen].astype(np.float32), (2, 3), 0.25, 2)
    np.testing.assert_allclose(np.asarray(found)[chosen], expected, atol=1e-4)
    assert align(FEATURE.astype(jnp.bfloat16), boxes[:1]).dtype == jnp.bfloat16
    assert align(np.ones((3, 3, 1), np.uint8), [[0, 0, 8, 8]]).dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0}, "sampling_ratio is 0; expected a positive integer"),
        ({"ratio": -1}, "sampling_ratio is -1; expected a positive integer"),
        ({"size": 0}, "output_size is 0; expected a positive integer, or two"),
        ({"size": (2, 2, 2)}, "output_size is (2, 2, 2)"),
        ({"scale": 0.0}, "spatial_scale is 0.0"),
        ({"feature": np.zeros((3, 3))}, "features has shape (3, 3); expected [H, W, C]"),
        ({"feature": np.zeros((0, 3, 1))}, "expected at least one position"),
        ({"boxes": np.zeros((1, 5))}, "boxes has shape (1, 5)"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(complains, change, message):
    arguments = {"feature": FEATURE, "boxes": np.zeros((1, 4)), **change}
    complains(lambda: align(**arguments), message)
