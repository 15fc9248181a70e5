"""Averages of predictions against loops over members in probability space."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tolerances import close

from adaptive_nets.ensembling import RunningAverage, average_predictions

pytestmark = pytest.mark.core


def looped(log_probs: np.ndarray) -> np.ndarray:
    """Log of the mean probability, element by element."""
    members, objects, classes = log_probs.shape
    found = np.zeros((objects, classes))
    for i in range(objects):
        for c in range(classes):
            found[i, c] = math.fsum(math.exp(log_probs[s, i, c]) for s in range(members)) / members
    with np.errstate(divide="ignore"):
        return np.log(found)


def running(log_probs: np.ndarray) -> RunningAverage:
    average = RunningAverage.empty(*log_probs.shape[1:])
    for member in log_probs:
        average = average.add(member)
    return average


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (4, 7, 3), (23, 1, 11)])
def test_average_equals_a_loop(shape, predictions):
    log_probs, _ = predictions(*shape)
    close(average_predictions(log_probs), looped(log_probs), dtype=jnp.float64, terms=100)
    average = running(log_probs)
    assert average.count == shape[0]
    close(average.log_mean(), looped(log_probs), dtype=jnp.float64, terms=100)


def test_average_is_not_of_logits():
    log_probs = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
    probs = np.exp(average_predictions(log_probs))
    np.testing.assert_allclose(probs, [[0.7, 0.3]], rtol=1e-12)
    of_logits = np.exp(log_softmax(log_probs.mean(0), axis=-1))
    np.testing.assert_allclose(of_logits, [[0.75, 0.25]], rtol=1e-12)


def test_average_of_one_member_is_the_member(predictions):
    log_probs, _ = predictions(1, 6, 4)
    close(average_predictions(log_probs), log_probs[0], dtype=jnp.float64, terms=10)


def test_impossible_classes_have_no_probability():
    with np.errstate(divide="ignore"):
        log_probs = np.log([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    for found in (average_predictions(log_probs), running(log_probs).log_mean()):
        np.testing.assert_allclose(np.exp(found), [[0.5, 0.5, 0.0]], rtol=1e-12)
        assert found[0, 2] == -np.inf


def test_tiny_probabilities_do_not_vanish():
    log_probs = np.array([[[-900.0, 0.0]], [[-901.0, 0.0]]])
    expected = -900 + math.log((1 + math.exp(-1)) / 2)
    assert average_predictions(log_probs)[0, 0] == pytest.approx(expected, rel=1e-12)


def test_half_precision_is_normalised_again(predictions):
    log_probs, _ = predictions(3, 9, 5)
    halves = jnp.asarray(log_probs, jnp.float16)
    found = average_predictions(halves)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found), np.exp(looped(log_probs)), atol=3e-3)


def test_adding_does_not_change_the_average_before(predictions):
    log_probs, _ = predictions(2, 3, 4)
    first = RunningAverage.empty(3, 4).add(log_probs[0])
    before = first.log_mean()
    first.add(log_probs[1])
    np.testing.assert_array_equal(first.log_mean(), before)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.zeros((2, 3, 4)), "sum to 4"),
        (np.log(np.full((2, 3, 2), 0.499)), "sum to 0.998"),
        (np.full((2, 3, 4), np.inf), "sum to inf"),
        (np.log(np.full((3, 2), 0.5)), "(3, 2)"),
        (np.zeros((0, 3, 1)), "(0, 3, 1)"),
        (np.zeros((2, 0, 1)), "(2, 0, 1)"),
        (np.zeros((2, 3, 0)), "(2, 3, 0)"),
        ([[[math.nan, 0.0]]], "NaN"),
        ("text", "text"),
        ([[[0.0], [0.0, 0.0]]], "numbers"),
        (None, ""),
    ],
)
def test_bad_predictions_are_one_line(bad, text, complains):
    complains(lambda: average_predictions(bad), "log_probs", text, "expected")


def test_bad_views_are_one_line(complains):
    average = RunningAverage.empty(2, 3)
    complains(average.log_mean, "0 views")
    complains(lambda: average.add(np.zeros((3, 2))), "log_probs", "(3, 2)", "(2, 3)")
    complains(lambda: average.add(np.zeros((1, 2, 3))), "log_probs", "(1, 2, 3)", "(2, 3)")
