"""Measures of predicted probabilities against loops over objects and closed forms."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from adaptive_nets.ensembling import (
    MEASURES,
    accuracy_rejection_area,
    adaptive_calibration_error,
    brier_score,
    error_rate,
    expected_calibration_error,
    log_likelihood,
    static_calibration_error,
)

pytestmark = pytest.mark.core

SHAPES = [(1, 1), (1, 4), (7, 2), (53, 5), (301, 10)]


def logs(probs) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probs, np.float64))


def most_probable(row: np.ndarray) -> int:
    best = 0
    for c in range(1, len(row)):
        if row[c] > row[best]:
            best = c
    return best


def binned_gap(confidence: list[float], correct: list[bool], bins: int) -> float:
    """Calibration error over the bins (b/B, (b + 1)/B], the first with its lower border 0."""
    gap = 0.0
    for b in range(bins):
        members = [i for i, p in enumerate(confidence) if b < p * bins <= b + 1 or b == p == 0]
        if members:
            accuracy = math.fsum(correct[i] for i in members) / len(members)
            mean = math.fsum(confidence[i] for i in members) / len(members)
            gap += len(members) / len(confidence) * abs(accuracy - mean)
    return gap


def looped_ll(log_probs, labels):
    return np.mean(
        [math.log(math.exp(p[y]) + 1e-12) for p, y in zip(log_probs, labels, strict=True)]
    )


def looped_error(log_probs, labels):
    return np.mean([most_probable(p) != y for p, y in zip(log_probs, labels, strict=True)])


def looped_brier(log_probs, labels):
    total = 0.0
    for row, label in zip(log_probs, labels, strict=True):
        total += math.fsum((math.exp(p) - (c == label)) ** 2 for c, p in enumerate(row))
    return total / len(labels)


def looped_ece(log_probs, labels, bins=15):
    best = [most_probable(row) for row in log_probs]
    confidence = [math.exp(row[c]) for row, c in zip(log_probs, best, strict=True)]
    return binned_gap(confidence, [c == y for c, y in zip(best, labels, strict=True)], bins)


def looped_sce(log_probs, labels, bins=15):
    probs = np.exp(log_probs)
    classes = range(probs.shape[1])
    return np.mean([binned_gap(list(probs[:, c]), list(labels == c), bins) for c in classes])


def looped_tace(log_probs, labels, bins=15, threshold=1e-3):
    probs = np.exp(log_probs)
    objects, classes = probs.shape
    gaps = []
    for c in range(classes):
        order = sorted((probs[i, c], i) for i in range(objects) if probs[i, c] > threshold)
        start = 0
        for b in range(bins):
            # The first bins are larger by one where the number does not divide.
            size = len(order) // bins + (b < len(order) % bins)
            part = order[start : start + size]
            start += size
            hits = [labels[i] == c for _, i in part]
            gaps.append(abs(np.mean(hits) - np.mean([p for p, _ in part])) if part else 0.0)
        assert start == len(order)
    return np.mean(gaps)


def looped_arc(log_probs, labels):
    objects = len(labels)
    best = [most_probable(row) for row in log_probs]
    order = sorted(range(objects), key=lambda i: -log_probs[i, best[i]])
    accuracy = []
    for step in range(1001):
        kept = order[: max(1, objects - step * objects // 1000)]
        accuracy.append(np.mean([best[i] == labels[i] for i in kept]))
    area = sum((a + b) / 2 for a, b in itertools.pairwise(accuracy)) / 1000
    return 1 - area


ORACLES = {
    "ll": looped_ll,
    "error": looped_error,
    "brier": looped_brier,
    "ece": looped_ece,
    "sce": looped_sce,
    "tace": looped_tace,
    "arc": looped_arc,
}
PUBLIC = {
    "ll": log_likelihood,
    "error": error_rate,
    "brier": brier_score,
    "ece": expected_calibration_error,
    "sce": static_calibration_error,
    "tace": adaptive_calibration_error,
    "arc": accuracy_rejection_area,
}
everywhere = pytest.mark.parametrize("name", PUBLIC)


def test_every_measure_has_an_oracle():
    assert set(ORACLES) == set(PUBLIC) == set(MEASURES)


@everywhere
@pytest.mark.parametrize("shape", SHAPES)
def test_measure_equals_a_loop(name, shape, predictions):
    log_probs, labels = predictions(*shape)
    expected = ORACLES[name](log_probs, labels)
    found = PUBLIC[name](log_probs, labels)
    assert type(found) is float
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert MEASURES[name](log_probs, labels) == found


@everywhere
def test_jax_arrays_lists_and_narrow_labels_give_the_same(name, predictions):
    log_probs, labels = predictions(29, 4)
    single = log_probs.astype(np.float32)
    measure = PUBLIC[name]
    expected = measure(single, labels)
    assert measure(jnp.asarray(single), jnp.asarray(labels)) == expected
    assert measure(single.tolist(), labels.tolist()) == expected
    assert measure(single, labels.astype(np.uint8)) == expected
    assert expected == pytest.approx(measure(log_probs, labels), abs=1e-5)


@everywhere
def test_measure_leaves_its_arguments(name, predictions):
    log_probs, labels = predictions(11, 3)
    before = log_probs.copy(), labels.copy()
    PUBLIC[name](log_probs, labels)
    np.testing.assert_array_equal(log_probs, before[0])
    np.testing.assert_array_equal(labels, before[1])


@everywhere
def test_one_hot_predictions_are_allowed(name):
    log_probs = logs(np.eye(3)[[0, 1, 2, 0]])
    labels = np.array([0, 1, 2, 1])
    expected = ORACLES[name](log_probs, labels)
    assert PUBLIC[name](log_probs, labels) == pytest.approx(expected, abs=1e-12)


def test_log_likelihood_has_a_floor():
    sure = logs([[1.0, 0.0]])
    assert log_likelihood(sure, [1]) == pytest.approx(math.log(1e-12), rel=1e-12)
    assert log_likelihood(sure, [0]) == pytest.approx(0, abs=1e-11)
    assert log_likelihood([[-800.0, 0.0]], [0]) == pytest.approx(math.log(1e-12), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_brier_score_in_closed_form(classes, rng):
    labels = rng.integers(0, classes, 9)
    uniform = logs(np.full((9, classes), 1 / classes))
    assert brier_score(logs(np.eye(classes)[labels]), labels) == 0
    assert brier_score(uniform, labels) == pytest.approx(1 - 1 / classes, abs=1e-12)
    if classes > 1:
        assert brier_score(logs(np.eye(classes)[(labels + 1) % classes]), labels) == 2


def test_ties_go_to_the_first_class():
    tied = logs([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]])
    assert error_rate(tied, [0, 1]) == 0
    assert error_rate(tied, [1, 2]) == 1
    assert error_rate(tied, [0, 2]) == 0.5


def test_confidence_on_a_border_belongs_to_the_bin_below():
    # Four bins: 0.5 is in (0.25, 0.5] and 0.625 in (0.5, 0.75]. In one bin the gaps would cancel.
    log_probs = logs([[0.5, 0.25, 0.25], [0.625, 0.25, 0.125]])
    labels = [0, 1]
    assert expected_calibration_error(log_probs, labels, bins=4) == pytest.approx(
        (0.5 + 0.625) / 2, abs=1e-12
    )
    assert expected_calibration_error(log_probs, labels, bins=1) == pytest.approx(
        abs(0.5 - 1.125 / 2), abs=1e-12
    )


@pytest.mark.parametrize("bins", [1, 2, 15, 40])
def test_calibration_errors_equal_loops_for_other_bins(bins, predictions):
    log_probs, labels = predictions(37, 3)
    for measure, oracle in (
        (expected_calibration_error, looped_ece),
        (static_calibration_error, looped_sce),
        (adaptive_calibration_error, looped_tace),
    ):
        found = measure(log_probs, labels, bins=bins)
        assert found == pytest.approx(oracle(log_probs, labels, bins), abs=1e-12)


def test_calibration_error_in_one_bin_is_the_difference_of_means(predictions):
    log_probs, labels = predictions(83, 4)
    confidence = np.exp(log_probs.max(1)).mean()
    expected = abs(1 - error_rate(log_probs, labels) - confidence)
    assert expected_calibration_error(log_probs, labels, bins=1) == pytest.approx(expected)


def test_calibration_errors_of_calibrated_predictions_are_small(rng):
    log_probs = log_softmax(2 * rng.normal(size=(40_000, 4)), axis=-1)
    uniform = rng.random((len(log_probs), 1))
    labels = (np.exp(log_probs).cumsum(1) < uniform).sum(1).clip(max=3)
    overconfident = log_softmax(3 * log_probs, axis=-1)
    # The deviation of a bin of n objects is about 0.4·n^-0.5, 0.01 for 1,600 objects.
    for measure in (
        expected_calibration_error,
        static_calibration_error,
        adaptive_calibration_error,
    ):
        assert measure(log_probs, labels) < 0.015
        assert measure(overconfident, labels) > 0.05


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.9, 1.0])
def test_threshold_leaves_out_small_probabilities(threshold, predictions):
    log_probs, labels = predictions(41, 3)
    found = adaptive_calibration_error(log_probs, labels, bins=4, threshold=threshold)
    assert found == pytest.approx(looped_tace(log_probs, labels, 4, threshold), abs=1e-12)
    if threshold == 1:
        assert found == 0


@pytest.mark.parametrize("objects", [1, 7, 1000, 1003])
def test_rejection_area_of_perfect_and_wrong_predictions(objects, rng):
    log_probs = log_softmax(rng.normal(size=(objects, 3)), axis=-1)
    best = log_probs.argmax(1)
    assert accuracy_rejection_area(log_probs, best) == pytest.approx(0, abs=1e-12)
    assert accuracy_rejection_area(log_probs, (best + 1) % 3) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("objects", [29, 100, 300, 1000, 2500])
def test_rejected_shares_are_exact(objects, predictions):
    log_probs, labels = predictions(objects, 3)
    found = accuracy_rejection_area(log_probs, labels)
    assert found == pytest.approx(looped_arc(log_probs, labels), abs=1e-12)


def test_rejection_area_rewards_confidence_in_what_is_right():
    # Half of the predictions are right; the confident half, or the other one.
    log_probs = logs([[0.9, 0.1]] * 50 + [[0.6, 0.4]] * 50)
    good = np.repeat([0, 1], 50)
    assert accuracy_rejection_area(log_probs, good) < 0.2
    assert accuracy_rejection_area(log_probs, 1 - good) > 0.8


UNIFORM = np.log(np.full((2, 4), 0.25))


@everywhere
@pytest.mark.parametrize(
    ("log_probs", "labels", "texts"),
    [
        (UNIFORM, [0, 4], ("labels", "hold 4", "0 to 3")),
        (UNIFORM, [-1, 0], ("labels", "hold -1", "0 to 3")),
        (UNIFORM, [0.0, 1.0], ("labels", "float64", "integers")),
        (UNIFORM, [True, False], ("labels", "bool", "integers")),
        (UNIFORM, [0], ("labels", "(1,)", "(2,)")),
        (UNIFORM, [[0], [1]], ("labels", "(2, 1)", "(2,)")),
        (UNIFORM, 1, ("labels", "()", "(2,)")),
        (UNIFORM, [], ("labels", "(0,)", "(2,)")),
        (np.zeros((0, 4)), [], ("log_probs", "(0, 4)")),
        (np.zeros((2, 0)), [0, 0], ("log_probs", "(2, 0)")),
        (UNIFORM[0], [0], ("log_probs", "(4,)", "[N, K]")),
        (UNIFORM[None], [0, 1], ("log_probs", "(1, 2, 4)", "[N, K]")),
        (UNIFORM + 1, [0, 1], ("log_probs", "2.718", "log_softmax")),
        (UNIFORM * np.nan, [0, 1], ("log_probs", "NaN")),
        ("text", [0], ("log_probs", "text")),
    ],
)
def test_bad_arguments_are_one_line(name, log_probs, labels, texts, complains):
    complains(lambda: PUBLIC[name](log_probs, labels), "expected", *texts)


def test_labels_of_unequal_lengths_are_one_line(complains):
    complains(lambda: log_likelihood(UNIFORM, [[0], [1, 2]]), "labels", "expected")


@pytest.mark.parametrize("bins", [0, -3, 2.0, None, "4"])
@pytest.mark.parametrize("name", ["ece", "sce", "tace"])
def test_bad_bins_are_one_line(name, bins, complains):
    complains(lambda: PUBLIC[name](UNIFORM, [0, 1], bins=bins), f"bins is {bins!r}", "at least 1")
