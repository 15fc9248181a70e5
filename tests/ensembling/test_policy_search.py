"""Greedy policy search against brute force in float64."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.special import log_softmax

from adaptive_nets.ensembling import greedy_policy_search, policy_search, search_policy

pytestmark = pytest.mark.core

CRITERIA = ("cll", "ll", "accuracy")
SHAPE = (7, 23, 3)
"""Candidates, objects and classes of most tests, so that they share their programs."""
# Scores closer than this are equal as far as the search for a temperature is exact.
TIE = 1e-8


def brute_score(probs: np.ndarray, labels: np.ndarray, criterion: str) -> float:
    """Criterion of averaged probabilities, straight from its definition."""
    chosen = np.arange(len(labels))
    if criterion == "accuracy":
        return float(np.mean([row.tolist().index(max(row)) == y
                              for row, y in zip(probs, labels, strict=True)]))  # fmt: skip
    probs = probs / probs.sum(1, keepdims=True)
    if criterion == "ll":
        return float(np.log(probs[chosen, labels] + 1e-12).mean())
    logs = np.log(probs + 1e-12)
    scaled = log_softmax(logs / best_temperature(logs, labels), axis=1)
    return float(scaled[chosen, labels].mean())


def best_temperature(logs: np.ndarray, labels: np.ndarray) -> float:
    """Root of the slope of the log-likelihood, which falls with 1/T."""
    finite = np.where(np.isfinite(logs), logs, 0.0)
    target = logs[np.arange(len(labels)), labels].mean()

    def slope(log_inverse: float) -> float:
        probs = np.exp(log_softmax(math.exp(log_inverse) * logs, axis=1))
        return float(target - (probs * finite).sum(1).mean())

    if slope(-14.0) <= 0:
        return math.exp(14)
    return math.exp(-14) if slope(14.0) >= 0 else math.exp(-optimize.brentq(slope, -14, 14))


def assert_greedy(log_probs, labels, criterion, length):
    """Asserts that every step took the best addition, the first of equal ones."""
    chosen, scores = search_policy(log_probs, labels, length=length, criterion=criterion)
    assert chosen.shape == scores.shape == (length,)
    probs = np.exp(np.asarray(log_probs, np.float64))
    total = np.zeros(probs.shape[1:])
    tie = 0.5 / len(labels) if criterion == "accuracy" else TIE
    for step, (b, score) in enumerate(zip(chosen, scores, strict=True), start=1):
        found = [brute_score((total + p) / step, labels, criterion) for p in probs]
        best = max(found)
        assert found[b] >= best - tie, (step, int(b), found)
        near = [i for i, value in enumerate(found) if value >= best - tie]
        if criterion == "accuracy" or len(near) == 1:
            assert b == near[0], (step, int(b), near)
        total += probs[b]
        assert score == pytest.approx(found[b], abs=1e-6)
    return chosen, scores


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(
    ("shape", "cases"), [(SHAPE, 5), ((13, 40, 2), 2), ((5, 9, 11), 2), ((3, 1, 2), 3)]
)
def test_search_equals_brute_force(shape, cases, criterion, rng):
    count, objects, classes = shape
    for _ in range(cases):
        labels = rng.integers(0, classes, objects)
        # Candidates of various quality; some are overconfident.
        quality = rng.uniform(0, 3, (count, 1, 1))
        logits = rng.normal(size=shape) + quality * np.eye(classes)[labels]
        logits *= rng.choice([0.3, 1.0, 4.0], (count, 1, 1))
        assert_greedy(log_softmax(logits, axis=-1), labels, criterion, 5)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("spread", [1e-3, 1e-2, 10.0, 30.0, 100.0])
def test_candidates_of_any_confidence_are_scored_alike(spread, criterion, rng):
    for _ in range(3):
        labels = rng.integers(0, 3, SHAPE[1])
        known = np.eye(3)[labels]
        # All are wrong about some objects, so that the best temperatures are finite.
        known[:5] = np.roll(known[:5], 1, axis=1)
        logits = spread * (rng.normal(size=SHAPE) + 2.5 * known)
        assert_greedy(log_softmax(logits, axis=-1), labels, criterion, 4)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_candidates_worse_than_chance_recover(criterion, rng):
    # Alone they are best ignored, at 1/T = 0; with candidate 0, all know the objects.
    labels = rng.integers(0, 3, SHAPE[1])
    known = np.eye(3)[labels]
    known[:3] = np.roll(known[:3], 1, axis=1)
    probs = np.empty(SHAPE)
    probs[0] = 0.8 * known + 0.2 / 3
    for b in range(1, len(probs)):
        noise = rng.dirichlet(np.ones(3), SHAPE[1])
        probs[b] = 0.5 * np.where(known, 0.1, 0.45) + 0.5 * noise
    assert_greedy(np.log(probs), labels, criterion, 4)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_sure_candidates_are_scored_alike(criterion, rng):
    # Every second candidate predicts one class with certainty: some labels are impossible at first.
    count, objects, _ = SHAPE
    for _ in range(5):
        labels = rng.integers(0, 3, objects)
        right = rng.random((count, objects)) < 0.7
        predicted = np.where(right, labels, rng.integers(0, 3, (count, objects)))
        probs = np.eye(3)[predicted]
        probs[::2] = 0.9 * probs[::2] + 0.1 / 3
        with np.errstate(divide="ignore"):
            assert_greedy(np.log(probs), labels, criterion, 5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_tied_classes_are_scored_alike(criterion, rng):
    # Powers of two: sums are exact, and classes often have equal probabilities.
    rows = np.array(list(set(itertools.permutations([0.5, 0.25, 0.125, 0.125]))))
    for _ in range(6):
        labels = rng.integers(0, 4, 12)
        log_probs = np.log(rows[rng.integers(0, len(rows), (6, 12))])
        assert_greedy(log_probs, labels, criterion, 5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_first_of_equal_candidates_is_taken(criterion, predictions):
    log_probs, labels = predictions(4, 23, 3)
    log_probs = log_probs[[1, 3, 1, 0, 3, 2, 0]]
    chosen = greedy_policy_search(log_probs, labels, length=6, criterion=criterion)
    assert set(chosen.tolist()) <= {0, 1, 3, 5}
    reversed_order = greedy_policy_search(log_probs[::-1], labels, length=6, criterion=criterion)
    assert set(reversed_order.tolist()) <= {0, 1, 2, 4}
    equal = np.repeat(log_probs[:1], 7, axis=0)
    found = greedy_policy_search(equal, labels, length=3, criterion=criterion)
    np.testing.assert_array_equal(found, [0, 0, 0])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_candidates_are_chosen_again(criterion, rng):
    labels = rng.integers(0, 3, SHAPE[1])
    good = np.where(np.eye(3)[labels], 0.9, 0.05)
    good[:4] = np.roll(good[:4], 1, axis=1)
    # Nothing helps the good candidate. Of equal accuracies the first is taken.
    place = 0 if criterion == "accuracy" else SHAPE[0] - 1
    misled = np.where(np.eye(3)[labels], 0.04, rng.uniform(0.3, 0.6, SHAPE))
    log_probs = np.log(misled / misled.sum(-1, keepdims=True))
    log_probs[place] = np.log(good)
    found = search_policy(log_probs, labels, length=9, criterion=criterion)
    np.testing.assert_array_equal(found.chosen, [place] * 9)
    np.testing.assert_allclose(found.scores, found.scores[0], rtol=1e-9)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_prefixes_do_not_depend_on_the_length(criterion, predictions):
    log_probs, labels = predictions(*SHAPE)
    long = search_policy(log_probs, labels, length=9, criterion=criterion)
    for length in (1, 4):
        short = search_policy(log_probs, labels, length=length, criterion=criterion)
        np.testing.assert_array_equal(short.chosen, long.chosen[:length])
        np.testing.assert_array_equal(short.scores, long.scores[:length])


def test_one_candidate_and_one_class():
    found = search_policy(np.zeros((1, 3, 1)), [0, 0, 0], length=2)
    np.testing.assert_array_equal(found.chosen, [0, 0])
    np.testing.assert_allclose(found.scores, 0, atol=1e-11)


def test_orthogonal_candidates_equal_brute_force_over_pairs(rng):
    """Candidate b knows the classes of its own objects and nothing of the others."""
    objects, classes, count = 48, 4, 6
    labels = rng.integers(0, classes, objects)
    log_probs = np.full((count, objects, classes), math.log(1 / classes))
    for b in range(count):
        # Candidate b knows b + 2 objects of its own.
        start = sum(range(2, b + 2))
        for i in range(start, start + b + 2):
            log_probs[b, i] = math.log(0.1 / (classes - 1))
            log_probs[b, i, labels[i]] = math.log(0.9)
    for criterion in ("cll", "ll"):
        probs = np.exp(log_probs)
        single = [brute_score(p, labels, criterion) for p in probs]
        assert np.argmax(single) == count - 1
        pairs = {
            (a, b): brute_score((probs[a] + probs[b]) / 2, labels, criterion)
            for a in range(count)
            for b in range(count)
        }
        found = search_policy(log_probs, labels, length=2, criterion=criterion)
        assert found.chosen[0] == np.argmax(single)
        assert found.scores[0] == pytest.approx(max(single), abs=1e-6)
        assert found.scores[1] == pytest.approx(max(pairs.values()), abs=1e-6)
        assert pairs[tuple(found.chosen)] == pytest.approx(max(pairs.values()), abs=TIE)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_those_of_the_summed_prefix(criterion, predictions):
    log_probs, labels = predictions(*SHAPE)
    single = log_probs.astype(np.float32)
    chosen, scores = search_policy(single, labels, length=15, criterion=criterion)
    probs = np.exp(single.astype(np.float64))
    for step in range(1, 16):
        mean = sum(probs[b] for b in chosen[:step]) / step
        assert scores[step - 1] == pytest.approx(brute_score(mean, labels, criterion), abs=1e-6)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_blocks_of_the_pool_do_not_matter(criterion, predictions, monkeypatch):
    log_probs, labels = predictions(*SHAPE)
    expected = search_policy(log_probs, labels, length=6, criterion=criterion)
    for size in (1, 3, 4):
        monkeypatch.setattr(policy_search, "_BLOCK", size * SHAPE[1] * SHAPE[2])
        found = search_policy(log_probs, labels, length=6, criterion=criterion)
        np.testing.assert_array_equal(found.chosen, expected.chosen)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_memory_mapped_and_jax_arrays_give_the_same(predictions, tmp_path):
    log_probs, labels = predictions(*SHAPE)
    single = log_probs.astype(np.float32)
    np.save(tmp_path / "pool.npy", single)
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    expected = search_policy(single, labels, length=4)
    for array in (mapped, jnp.asarray(single)):
        found = search_policy(array, jnp.asarray(labels), length=4)
        np.testing.assert_array_equal(found.chosen, expected.chosen)
        np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(mapped, single)
    nested = greedy_policy_search(single.tolist(), labels.tolist(), length=4)
    np.testing.assert_array_equal(nested, expected.chosen)


def test_steps_are_reported(predictions):
    log_probs, labels = predictions(*SHAPE)
    calls = []
    found = search_policy(
        log_probs, labels, length=3, after_step=lambda done, score: calls.append((done, score))
    )
    assert calls == list(zip([1, 2, 3], found.scores, strict=True))


def test_an_exception_of_the_report_ends_the_search(predictions):
    log_probs, labels = predictions(*SHAPE)
    calls = []

    def stop(done, score):
        calls.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_policy(log_probs, labels, length=9, after_step=stop)
    assert calls == [1, 2]


POOL = np.log(np.full((2, 3, 4), 0.25))


@pytest.mark.parametrize(
    ("log_probs", "labels", "options", "texts"),
    [
        (POOL, [0, 1, 2], {"criterion": "error"}, ("criterion is 'error'", "cll, ll, accuracy")),
        (POOL, [0, 1, 2], {"criterion": None}, ("criterion is None", "cll, ll, accuracy")),
        (POOL, [0, 1, 2], {"length": 0}, ("length is 0", "at least 1")),
        (POOL, [0, 1, 2], {"length": 1.5}, ("length is 1.5", "integer")),
        (POOL[0], [0, 1, 2], {}, ("log_probs", "(3, 4)", "[B, N, K]")),
        (POOL[:0], [0, 1, 2], {}, ("log_probs", "(0, 3, 4)")),
        (POOL[:, :0], [], {}, ("log_probs", "(2, 0, 4)")),
        (POOL[:, :, :0], [0, 1, 2], {}, ("log_probs", "(2, 3, 0)")),
        (POOL + 0.1, [0, 1, 2], {}, ("log_probs", "sum to 1.105", "log_softmax")),
        (np.concatenate([POOL, POOL * 0]), [0, 1, 2], {}, ("log_probs", "sum to 4")),
        (POOL * np.nan, [0, 1, 2], {}, ("log_probs", "NaN")),
        (POOL, [0, 1, 4], {}, ("labels", "hold 4", "0 to 3")),
        (POOL, [0, 1, -1], {}, ("labels", "hold -1", "0 to 3")),
        (POOL, [0.0, 1.0, 2.0], {}, ("labels", "float64", "integers")),
        (POOL, [0, 1], {}, ("labels", "(2,)", "(3,)")),
    ],
)
def test_bad_arguments_are_one_line(log_probs, labels, options, texts, complains):
    options = {"length": 2, **options}
    complains(lambda: greedy_policy_search(log_probs, labels, **options), "expected", *texts)
    complains(lambda: search_policy(log_probs, labels, **options), "expected", *texts)
