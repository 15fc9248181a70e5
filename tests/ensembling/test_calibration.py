"""Temperatures and calibrated measures against grids, SciPy's optimiser and loops over folds."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.special import log_softmax

from adaptive_nets.ensembling import (
    MEASURES,
    calibrated_log_likelihood,
    calibrated_measures,
    error_rate,
    fit_temperature,
    log_likelihood,
    scale_by_temperature,
)
from adaptive_nets.ensembling.calibration import divisions

pytestmark = pytest.mark.core


def likelihood(logits, labels, temperature) -> float:
    """Mean log-likelihood without a floor, object by object."""
    total = 0.0
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        scaled = row / temperature
        top = scaled.max()
        total += scaled[label] - top - math.log(math.fsum(math.exp(x - top) for x in scaled))
    return total / len(labels)


def best_log_temperature(logits, labels) -> float:
    """The best of a grid of log T, refined by SciPy between its neighbours."""
    grid = np.linspace(-6, 6, 121)
    values = [log_softmax(logits / math.exp(t), axis=-1)[np.arange(len(labels)), labels].mean()
              for t in grid]  # fmt: skip
    i = int(np.argmax(values))
    found = optimize.minimize_scalar(
        lambda t: -likelihood(logits, labels, math.exp(t)),
        bounds=(grid[max(i - 1, 0)], grid[min(i + 1, 120)]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.x)


def drawn(rng, objects, classes, *, temperature=1.0, spread=3.0):
    """Logits, and labels drawn from softmax(logits / T)."""
    logits = spread * rng.normal(size=(objects, classes))
    cumulative = np.exp(log_softmax(logits / temperature, axis=-1)).cumsum(1)
    labels = (cumulative < rng.random((objects, 1))).sum(1).clip(max=classes - 1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 20.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_temperature_of_drawn_labels_is_found(temperature, classes, rng):
    spread = 3.0 * temperature
    logits, labels = drawn(rng, 20_000, classes, temperature=temperature, spread=spread)
    # The estimate deviates by about 1% for 20,000 objects.
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (17, 3), (101, 10)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_equals_that_of_a_grid(shape, temperature, rng):
    logits, labels = drawn(rng, *shape, temperature=temperature)
    if shape[0] < 4:
        # All are right but the least sure one, so that the best temperature is finite.
        labels, least = logits.argmax(1), int(np.ptp(logits, axis=1).argmin())
        labels[least] = logits[least].argmin()
    expected = best_log_temperature(logits, labels)
    assert abs(expected) < 5.5
    assert math.log(fit_temperature(logits, labels)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 0.07, 1.0, 30.0, 1e3])
def test_factors_and_offsets_of_logits_do_not_matter(factor, rng):
    logits, labels = drawn(rng, 61, 4, temperature=2.0)
    offsets = rng.normal(size=(61, 1))
    temperature = fit_temperature(logits, labels)
    changed = factor * (logits + offsets)
    assert fit_temperature(changed, labels) == pytest.approx(factor * temperature, rel=1e-4)
    expected = calibrated_log_likelihood(logits, labels)
    assert calibrated_log_likelihood(changed, labels) == pytest.approx(expected, abs=1e-4)


def test_log_probabilities_give_the_same_as_logits(rng):
    logits, labels = drawn(rng, 83, 5, temperature=0.6)
    log_probs = log_softmax(logits, axis=-1)
    assert fit_temperature(log_probs, labels) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-5
    )
    assert calibrated_log_likelihood(log_probs, labels) == pytest.approx(
        calibrated_log_likelihood(logits, labels), abs=1e-9
    )


def test_jax_arrays_give_the_same(rng):
    logits, labels = drawn(rng, 31, 3)
    single = logits.astype(np.float32)
    expected = calibrated_log_likelihood(single, labels)
    assert calibrated_log_likelihood(jnp.asarray(single), jnp.asarray(labels)) == expected


def test_calibrated_predictions_stay(rng):
    logits, labels = drawn(rng, 30_000, 5)
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.03)
    plain = log_likelihood(log_softmax(logits, axis=-1), labels)
    assert calibrated_log_likelihood(logits, labels) == pytest.approx(plain, abs=1e-3)


def test_calibration_raises_the_likelihood_of_overconfident_predictions(rng):
    logits, labels = drawn(rng, 4001, 5)
    plain = log_likelihood(log_softmax(logits, axis=-1), labels)
    too_sure = log_softmax(4 * logits, axis=-1)
    assert log_likelihood(too_sure, labels) < plain - 0.3
    assert calibrated_log_likelihood(too_sure, labels) == pytest.approx(plain, abs=0.01)


def test_scaling_equals_a_softmax_of_quotients(rng):
    logits = rng.normal(size=(7, 3))
    logits[0, 1] = -np.inf
    powers = np.exp(logits / 0.7)
    found = scale_by_temperature(logits, 0.7)
    np.testing.assert_allclose(np.exp(found), powers / powers.sum(1, keepdims=True), rtol=1e-12)
    assert found.dtype == np.float64


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("value", [0.0, -4.5, 1e30])
def test_constant_logits_keep_the_temperature(classes, value, rng):
    logits, labels = np.full((6, classes), value), rng.integers(0, classes, 6)
    assert fit_temperature(logits, labels) == 1
    expected = math.log(1 / classes + 1e-12)
    assert calibrated_log_likelihood(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_one_possible_class_keeps_the_temperature():
    logits = np.array([[0.0, -np.inf], [-np.inf, 3.0]])
    assert fit_temperature(logits, [0, 1]) == 1
    assert calibrated_log_likelihood(logits, [0, 1]) == pytest.approx(0, abs=1e-11)


def test_correct_predictions_become_sure(rng):
    logits = rng.normal(size=(40, 4))
    labels = logits.argmax(1)
    temperature = fit_temperature(logits, labels)
    assert 0 < temperature < 1e-3
    value = calibrated_log_likelihood(logits, labels)
    assert math.isfinite(value)
    # At 1e-4 of the mean deviation, only near ties are not sure.
    assert log_likelihood(log_softmax(logits, axis=-1), labels) < -0.5
    assert -0.01 < value < 1e-9


def test_wrong_predictions_become_uniform(rng):
    logits = rng.normal(size=(40, 2))
    labels = logits.argmin(1)
    assert fit_temperature(logits, labels) > 1e3
    assert calibrated_log_likelihood(logits, labels) == pytest.approx(-math.log(2), abs=1e-3)


def test_impossible_classes_do_not_move_the_temperature(rng):
    logits, labels = drawn(rng, 50, 3, temperature=2.0)
    expected = fit_temperature(logits, labels)
    wider = np.concatenate([logits, np.full((50, 2), -np.inf)], axis=1)
    assert fit_temperature(wider, labels) == pytest.approx(expected, rel=1e-4)
    assert calibrated_log_likelihood(wider, labels) == pytest.approx(
        calibrated_log_likelihood(logits, labels), abs=1e-9
    )


def test_an_impossible_label_costs_the_floor(rng):
    logits, labels = drawn(rng, 20, 3, temperature=2.0)
    more = np.concatenate([logits, [[-np.inf, 0.0, -1.0]]])
    found = fit_temperature(more, [*labels, 0])
    # The other classes of that object have no say.
    assert math.isfinite(found)
    assert log_likelihood(scale_by_temperature(more, found)[-1:], [0]) == pytest.approx(
        math.log(1e-12)
    )


@pytest.mark.parametrize("outlier", [1e4, 1e8, float(np.finfo(np.float32).max)])
def test_an_outlier_does_not_limit_the_temperature(outlier, rng):
    logits, labels = drawn(rng, 200, 3, temperature=2.0)
    expected = fit_temperature(logits, labels)
    # A masked class, as JAX programs write it: far below the others, never a label.
    masked = np.concatenate([logits, np.full((200, 1), -np.inf)], axis=1)
    masked[7, 3] = -outlier
    assert fit_temperature(masked, labels) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("objects", "folds", "repeats"), [(2, 2, 1), (7, 2, 5), (9, 4, 2), (5, 5, 3)]
)
def test_divisions_cover_every_object_once_per_repeat(objects, folds, repeats):
    found = list(divisions(objects, folds=folds, repeats=repeats, seed=3))
    assert len(found) == folds * repeats
    for start in range(0, len(found), folds):
        parts = [fold for fold, _ in found[start : start + folds]]
        assert sorted(np.concatenate(parts)) == list(range(objects))
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    for fold, rest in found:
        assert sorted([*fold, *rest]) == list(range(objects))
        assert list(fold) == sorted(fold)
        assert list(rest) == sorted(rest)


def test_divisions_are_random_and_repeatable():
    def folds(seed):
        return [tuple(fold) for fold, _ in divisions(20, folds=2, repeats=5, seed=seed)]

    assert folds(0) == folds(0)
    assert folds(0) != folds(1)
    assert len({frozenset((a, b)) for a, b in zip(*[iter(folds(0))] * 2, strict=True)}) == 5


@pytest.mark.parametrize(
    ("objects", "folds", "repeats", "seed"), [(30, 2, 5, 0), (23, 3, 2, 4), (9, 9, 1, 0)]
)
def test_calibrated_likelihood_equals_a_loop(objects, folds, repeats, seed, rng):
    logits, labels = drawn(rng, objects, 3, temperature=2.0)
    values, temperatures = [], []
    for fold, rest in divisions(objects, folds=folds, repeats=repeats, seed=seed):
        temperatures.append(math.exp(best_log_temperature(logits[rest], labels[rest])))
        values.append(likelihood(logits[fold], labels[fold], temperatures[-1]))
    options = {"folds": folds, "repeats": repeats, "seed": seed}
    found = calibrated_log_likelihood(logits, labels, **options)
    assert found == pytest.approx(np.mean(values), abs=1e-5)
    measures = calibrated_measures(logits, labels, **options)
    assert measures["ll"] == found
    assert measures["temperature"] == pytest.approx(np.mean(temperatures), rel=1e-4)
    assert calibrated_log_likelihood(logits, labels, **options) == found


def test_calibrated_measures_have_their_names(rng):
    logits, labels = drawn(rng, 30, 4)
    found = calibrated_measures(logits, labels)
    assert set(found) == {*MEASURES, "temperature"}
    # The temperature does not change the most probable class, and the folds are of one size.
    assert found["error"] == pytest.approx(error_rate(log_softmax(logits, axis=-1), labels))
    chosen = calibrated_measures(logits, labels, {"brier": MEASURES["brier"]})
    assert set(chosen) == {"brier", "temperature"}
    assert chosen["brier"] == found["brier"]
    assert chosen["temperature"] == found["temperature"]


def test_measures_see_the_scaled_fold(rng):
    logits, labels = drawn(rng, 8, 3, temperature=2.0)
    calls = []

    def record(log_probs, of):
        calls.append((log_probs, of))
        return 1.0

    found = calibrated_measures(logits, labels, {"own": record}, folds=8, repeats=1, seed=2)
    assert found["own"] == 1
    expected = divisions(8, folds=8, repeats=1, seed=2)
    for (log_probs, of), (fold, rest) in zip(calls, expected, strict=True):
        temperature = math.exp(best_log_temperature(logits[rest], labels[rest]))
        np.testing.assert_allclose(
            log_probs, log_softmax(logits[fold] / temperature, axis=-1), atol=1e-3
        )
        np.testing.assert_array_equal(of, labels[fold])


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"folds": 5}, ("folds is 5", "at most 4", "objects")),
        ({"folds": 1}, ("folds is 1", "at least 2")),
        ({"folds": 0}, ("folds is 0", "at least 2")),
        ({"folds": 2.0}, ("folds is 2.0", "integer")),
        ({"repeats": 0}, ("repeats is 0", "at least 1")),
        ({"repeats": None}, ("repeats is None", "integer")),
    ],
)
def test_bad_folds_are_one_line(options, texts, complains):
    logits = np.zeros((4, 3))
    complains(lambda: calibrated_log_likelihood(logits, [0, 1, 2, 0], **options), *texts)
    complains(lambda: calibrated_measures(logits, [0, 1, 2, 0], **options), *texts)


@pytest.mark.parametrize("function", [fit_temperature, calibrated_log_likelihood])
@pytest.mark.parametrize(
    ("logits", "labels", "texts"),
    [
        (np.zeros((0, 3)), [], ("logits", "(0, 3)")),
        (np.zeros((2, 0)), [0, 0], ("logits", "(2, 0)")),
        (np.zeros(3), [0], ("logits", "(3,)", "[N, K]")),
        ([[0.0, np.nan], [0.0, 1.0]], [0, 1], ("logits", "NaN")),
        ([[0.0, np.inf], [0.0, 1.0]], [0, 1], ("logits", "infinite")),
        ([[-np.inf, -np.inf], [0.0, 1.0]], [0, 1], ("logits", "finite")),
        (np.zeros((2, 3)), [0, 3], ("labels", "hold 3", "0 to 2")),
        (np.zeros((2, 3)), [0.0, 1.0], ("labels", "float64", "integers")),
        (np.zeros((2, 3)), [0], ("labels", "(1,)", "(2,)")),
    ],
)
def test_bad_arguments_are_one_line(function, logits, labels, texts, complains):
    complains(lambda: function(logits, labels), "expected", *texts)


def test_one_object_cannot_be_divided(complains):
    complains(lambda: calibrated_log_likelihood([[0.0, 1.0]], [1]), "folds is 2", "at most 1")


@pytest.mark.parametrize("objects", [1, 40])
def test_temperature_of_correct_predictions_makes_them_certain(objects):
    logits, labels = np.tile([0.0, 1.0, 0.5], (objects, 1)), np.ones(objects, int)
    temperature = fit_temperature(logits, labels)
    assert 0 < temperature < 0.05
    assert scale_by_temperature(logits, temperature)[0, 1] == pytest.approx(0, abs=1e-6)
