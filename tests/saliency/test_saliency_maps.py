"""Blurred ponder maps, the centre bias, sizes, fixations of blurred maps, and both parameters."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.saliency import (
    auc_judd,
    blurred,
    centre_baseline,
    choose_parameters,
    first_halves,
    fixation_density,
    fixations_from_density,
    random_halves,
    resized,
    score_grid,
    smoothed_map,
    unit_scaled,
)


def test_the_centre_is_a_gaussian_of_the_image():
    for height, width in ((1, 1), (5, 8), (9, 4)):
        expected = np.empty((height, width))
        for y in range(height):
            for x in range(width):
                v = (y - (height - 1) / 2) / (0.3 * height)
                u = (x - (width - 1) / 2) / (0.3 * width)
                expected[y, x] = np.exp(-(u * u + v * v) / 2)
        np.testing.assert_allclose(centre_baseline((height, width), width=0.3), expected)


def test_the_blur_is_a_convolution_with_a_gaussian(rng):
    values = np.zeros((41, 31))
    values[20, 15] = 1
    y, x = np.mgrid[-20:21, -15:16]
    kernel = np.exp(-(x**2 + y**2) / (2 * 2.5**2))
    np.testing.assert_allclose(blurred(values, sigma=2.5), kernel / kernel.sum(), atol=1e-5)
    noise = rng.uniform(size=(7, 30))
    assert blurred(noise, sigma=9).mean() == pytest.approx(noise.mean())
    np.testing.assert_array_equal(blurred(noise, sigma=0), noise)


def test_smoothed_maps_add_the_centre_to_the_scaled_blur(rng):
    ponder = rng.uniform(3, 9, (12, 17))
    blur = blurred(ponder, sigma=1.5)
    scaled = (blur - blur.min()) / (blur.max() - blur.min())
    expected = scaled + 0.7 * centre_baseline((12, 17))
    np.testing.assert_allclose(smoothed_map(ponder, sigma=1.5, centre_weight=0.7), expected)
    plain = smoothed_map(jnp.asarray(ponder, jnp.float32), sigma=0, centre_weight=0)
    np.testing.assert_allclose(plain, unit_scaled(ponder), atol=1e-6)
    assert (plain.min(), plain.max()) == (0, 1)
    constant = smoothed_map(np.full((6, 4), 5.0), sigma=3, centre_weight=2)
    np.testing.assert_allclose(constant, 2 * centre_baseline((6, 4)), atol=1e-12)


def test_resizing_interpolates_between_centres(rng):
    values = rng.uniform(size=(4, 6))
    np.testing.assert_array_equal(resized(values, (4, 6)), values)
    np.testing.assert_allclose(resized(np.array([[0.0, 4.0]]), (1, 4)), [[0, 1, 3, 4]])
    np.testing.assert_allclose(
        resized(values, (2, 3)), values.reshape(2, 2, 3, 2).mean(axis=(1, 3))
    )
    ramp = np.arange(10.0)[:, None] * np.ones(3)
    np.testing.assert_allclose(np.diff(resized(ramp, (30, 5)), axis=0)[1:-1], 1 / 3)
    assert resized(values, (1, 1)).shape == (1, 1)
    assert resized(np.ones((1, 1)), (3, 5)).tolist() == np.ones((3, 5)).tolist()


def test_drawn_fixations_follow_the_density(rng):
    density = np.zeros((20, 20))
    density[5:10, 5:15], density[15:, :] = 3, 1
    total = np.zeros((20, 20))
    for seed in range(200):
        fixated = fixations_from_density(density, count=10, seed=seed)
        assert fixated.dtype == bool
        assert fixated.sum() == 10
        total += fixated
    assert (total[density == 0] == 0).all()
    assert total[5:10, 5:15].sum() / total.sum() == pytest.approx(0.6, abs=0.04)
    one = fixations_from_density(density, count=10, seed=3)
    np.testing.assert_array_equal(one, fixations_from_density(7 * density, count=10, seed=3))
    assert fixations_from_density(density, count=1000).sum() == (density > 0).sum()


def test_top_and_peaks():
    density = np.zeros((9, 9))
    density[2, 3], density[6, 6], density[2, 4] = 5, 3, 4
    top = fixations_from_density(density, rule="top", share=2 / 81)
    assert np.argwhere(top).tolist() == [[2, 3], [2, 4]]
    assert fixations_from_density(density, rule="top", share=1e-6).sum() == 1
    peaks = fixations_from_density(density, rule="peaks", radius=2)
    assert np.argwhere(peaks).tolist() == [[2, 3], [6, 6]]


def test_a_density_of_fixations_sums_to_one():
    fixated = np.zeros((30, 30), bool)
    fixated[10, 12] = True
    density = fixation_density(fixated, sigma=3)
    assert density.sum() == pytest.approx(1)
    assert np.unravel_index(density.argmax(), density.shape) == (10, 12)


def test_scores_of_the_grid_are_those_of_smoothed_maps(rng):
    ponder, fixated = rng.uniform(size=(12, 16)), rng.uniform(size=(24, 32)) < 0.05
    grid = score_grid(ponder, fixated, sigmas=(0, 0.1), centre_weights=(0, 0.5, 3))
    for i, share in enumerate((0, 0.1)):
        for j, weight in enumerate((0, 0.5, 3)):
            saliency = smoothed_map(ponder, sigma=16 * share, centre_weight=weight)
            expected = auc_judd(resized(saliency, (24, 32)), fixated)
            assert grid[i, j] == pytest.approx(expected, abs=1e-6)


def test_one_half_selects_and_the_other_reports():
    scores = np.zeros((4, 2, 3))
    scores[:2, 1, 2], scores[2:, 0, 1] = 0.9, 0.8
    scores[2:, 1, 2] = [0.3, 0.4]
    choice = choose_parameters(scores, np.array([True, True, False, False]))
    assert (choice.sigma, choice.centre_weight, choice.chosen_on) == (1, 2, 0.9)
    assert choice.scores.tolist() == [0.3, 0.4]
    assert choice.mean == pytest.approx(0.35)
    other = choose_parameters(scores, np.array([False, False, True, True]))
    assert (other.sigma, other.centre_weight, other.mean) == (0, 1, 0)


def test_halves():
    halves = random_halves(7, repeats=4, seed=1)
    assert halves.shape == (4, 7)
    assert (halves.sum(axis=1) == 3).all()
    assert len({row.tobytes() for row in halves}) > 1
    np.testing.assert_array_equal(halves[:2], random_halves(7, repeats=2, seed=1))
    groups = ["a", "b", "a", "a", "b", "a", "c"]
    assert first_halves(groups).tolist() == [[True, True, True, False, False, False, False]]


ONES = np.ones((3, 4))
MISTAKES = {
    "sigma": (lambda: smoothed_map(ONES, sigma=-1, centre_weight=0), "sigma is -1"),
    "weight": (lambda: smoothed_map(ONES, sigma=1, centre_weight=np.nan), "centre_weight is nan"),
    "no map": (lambda: smoothed_map(ONES[0], sigma=1, centre_weight=0), "ponder has shape (4,)"),
    "width": (lambda: centre_baseline((3, 4), width=0), "width is 0", "above 0"),
    "no size": (lambda: centre_baseline((3, 0)), "shape is (3, 0)"),  # type: ignore[arg-type]
    "size": (lambda: resized(ONES, (3,)), "shape is (3,)"),  # type: ignore[arg-type]
    "no fixation": (lambda: fixation_density(0 * ONES, sigma=1), "at least one fixation"),
    "rule": (lambda: fixations_from_density(ONES, rule="drwn"), "did you mean 'drawn'"),  # type: ignore[arg-type]
    "count": (lambda: fixations_from_density(ONES, count=0), "count is 0"),
    "share": (lambda: fixations_from_density(ONES, share=2), "share is 2", "at most 1"),
    "density": (lambda: fixations_from_density(-ONES), "density holds -1"),
    "candidates": (
        lambda: score_grid(ONES, ONES > 0, sigmas=(), centre_weights=(1,)),
        "at least one candidate",
    ),
    "scores": (lambda: choose_parameters(ONES, np.ones(3, bool)), "expected [N, S, W]"),
    "NaN": (
        lambda: choose_parameters(ONES[None] * np.nan, np.ones(1, bool)),
        "not finite",
    ),
    "half": (lambda: choose_parameters(ONES[:, :, None], np.ones(3, bool)), "two halves"),
    "halves": (lambda: choose_parameters(ONES[:, :, None], np.ones(3)), "expected bool[3]"),
    "one image": (lambda: random_halves(1), "count is 1"),
    "no pairs": (lambda: first_halves(["a", "b"]), "2 images"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(complains, case):
    call, *messages = MISTAKES[case]
    complains(call, *messages)
