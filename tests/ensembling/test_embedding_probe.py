"""Logistic regression of embeddings, against an independent optimiser and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from scipy.special import log_softmax

from adaptive_nets.ensembling import mean_embedding
from adaptive_nets.ensembling.linear_probe import choose_penalty, fit_linear_probe

pytestmark = pytest.mark.core


@pytest.fixture
def clusters(rng):
    """Overlapping clusters of embeddings with very different scales, and their labels."""
    labels = rng.integers(0, 4, 120)
    centres = rng.normal(size=(4, 3))
    embeddings = centres[labels] + 1.2 * rng.normal(size=(120, 3))
    return embeddings * [1e-3, 1.0, 50.0] + [7.0, 0.0, -300.0], labels


def oracle(embeddings, labels, penalty, classes):
    """Minimises the loss with finite differences, without gradients of ours."""
    scaled = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    size = scaled.shape[1]

    def loss(flat):
        kernel, bias = flat[: size * classes].reshape(size, classes), flat[size * classes :]
        log_probs = log_softmax(scaled @ kernel + bias, axis=1)
        return -np.mean(log_probs[range(len(labels)), labels]) + 0.5 * penalty * np.sum(kernel**2)

    found = optimize.minimize(loss, np.zeros(classes * (size + 1)), method="BFGS", tol=1e-7)
    kernel = found.x[: size * classes].reshape(size, classes)
    return log_softmax(scaled @ kernel + found.x[size * classes :], axis=1), found.fun


@pytest.mark.parametrize("penalty", [0.3, 1e-2])
def test_probe_equals_an_independent_optimiser(penalty, clusters):
    embeddings, labels = clusters
    embeddings, labels = embeddings[:60], labels[:60]
    expected, least = oracle(embeddings, labels, penalty, 4)
    head = fit_linear_probe(embeddings, labels, num_classes=4, penalty=penalty)
    found = head.log_probs(embeddings)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    kernel = head.kernel * embeddings.std(0)[:, None]
    loss = -found[np.arange(60), labels].mean() + 0.5 * penalty * np.sum(kernel**2)
    assert loss == pytest.approx(least, abs=1e-8)


def test_a_large_penalty_leaves_the_frequencies_of_the_classes(clusters):
    embeddings, labels = clusters
    head = fit_linear_probe(embeddings, labels, num_classes=5, penalty=1e6)
    probs = np.exp(head.log_probs(embeddings))
    shares = np.bincount(labels, minlength=5) / len(labels)
    np.testing.assert_allclose(probs[:, :4], np.tile(shares[:4], (120, 1)), atol=1e-4)
    assert probs[:, 4].max() < 1e-3


def test_single_precision_and_other_starts_lead_to_the_same_probe(clusters):
    embeddings, labels = clusters
    options = {"num_classes": 4, "penalty": 1e-2}
    exact = fit_linear_probe(embeddings, labels, **options)
    rounded = fit_linear_probe(embeddings, labels, dtype=np.float32, tolerance=1e-5, **options)
    np.testing.assert_allclose(
        rounded.log_probs(embeddings), exact.log_probs(embeddings), atol=1e-2
    )
    start = fit_linear_probe(embeddings[:30], labels[:30], num_classes=4, penalty=10.0)
    again = fit_linear_probe(embeddings, labels, start=start, **options)
    np.testing.assert_allclose(again.log_probs(embeddings), exact.log_probs(embeddings), atol=1e-3)
    at_the_end = fit_linear_probe(embeddings, labels, start=exact, max_iterations=1, **options)
    np.testing.assert_allclose(at_the_end.kernel, exact.kernel, rtol=1e-3, atol=1e-5)


def test_a_constant_dimension_has_no_weight(clusters):
    embeddings, labels = clusters
    wider = np.concatenate([embeddings, np.full((120, 1), 3.0)], axis=1)
    head = fit_linear_probe(wider, labels, num_classes=4, penalty=1e-2)
    np.testing.assert_allclose(head.kernel[3], 0, atol=1e-7)


def test_probe_of_a_mean_embedding_has_the_mean_of_the_logits(clusters, rng):
    embeddings, labels = clusters
    head = fit_linear_probe(embeddings, labels, num_classes=4, penalty=1e-3)
    views = (embeddings[:, None] * (1 + 0.01 * rng.normal(size=(120, 10, 3)))).astype(np.float32)
    of_views = np.mean([head.logits(views[:, s]) for s in range(10)], axis=0)
    difference = np.abs(head.logits(np.asarray(mean_embedding(views))) - of_views).max()
    assert difference < 1e-4 * np.abs(of_views).max()


def test_the_penalty_with_the_best_held_out_likelihood_is_chosen(clusters):
    embeddings, labels = clusters
    penalties = (1e4, 1e-2, 1.0)
    chosen, head = choose_penalty(
        embeddings, labels, penalties, num_classes=4, held_out=0.4, seed=1
    )  # fmt: skip
    order = np.random.default_rng(1).permutation(120)
    test, train = order[:48], order[48:]
    values = {}
    for penalty in penalties:
        probe = fit_linear_probe(embeddings[train], labels[train], num_classes=4, penalty=penalty)
        values[penalty] = probe.log_probs(embeddings[test])[np.arange(48), labels[test]].mean()
    assert chosen == max(values, key=lambda penalty: values[penalty])
    again = head.log_probs(embeddings[test])[np.arange(48), labels[test]].mean()
    assert again == pytest.approx(values[chosen], abs=1e-4)


def test_bad_input_is_one_line(clusters, complains):
    embeddings, labels = clusters

    def fit(embeddings=embeddings, labels=labels, **options):
        return fit_linear_probe(embeddings, labels, **{"num_classes": 4, "penalty": 0.1, **options})

    complains(lambda: fit(num_classes=3), "labels hold 3", "0 to 2")
    complains(lambda: fit(penalty=-1.0), "penalty is -1.0")
    complains(lambda: fit(penalty=float("nan")), "penalty is nan")
    complains(lambda: fit(labels=labels[:5]), "labels have shape (5,)", "expected (120,)")
    complains(lambda: fit(embeddings[:0], labels[:0]), "shape (0, 3)")
    complains(lambda: fit(embeddings * np.inf), "embeddings hold")
    complains(lambda: fit(embeddings[0]), "expected [N, D]")
    complains(lambda: fit(max_iterations=0), "max_iterations is 0")
    complains(lambda: choose_penalty(embeddings, labels, (), num_classes=4), "penalties are empty")
    complains(
        lambda: choose_penalty(embeddings[:2], labels[:2], (1.0,), num_classes=4, held_out=0.1),
        "held_out is 0.1 of 2 examples",
    )
