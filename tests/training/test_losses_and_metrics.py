"""Losses against SciPy, metrics against NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from tolerances import close

from adaptive_nets.training import metrics
from adaptive_nets.training.losses import cross_entropy, is_error, is_top_error
from adaptive_nets.training.metrics import Mean

pytestmark = pytest.mark.core


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy(smoothing, scale, rng):
    logits = scale * rng.normal(size=(11, 7))
    labels = rng.integers(0, 7, 11)
    targets = np.full((11, 7), smoothing / 7)
    targets[np.arange(11), labels] += 1 - smoothing
    expected = -np.sum(targets * log_softmax(logits, axis=-1), axis=-1)
    ours = cross_entropy(jnp.asarray(logits, jnp.float32), labels, label_smoothing=smoothing)
    assert ours.dtype == jnp.float32
    close(ours, expected, terms=7)


def test_cross_entropy_of_bfloat16_logits_is_float32():
    logits = jnp.asarray([[1.0, 2.0]], jnp.bfloat16)
    assert cross_entropy(logits, jnp.array([1])).dtype == jnp.float32


def test_is_error():
    logits = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_array_equal(is_error(logits, jnp.array([1, 1, 0])), [0, 1, 1])


def test_top_error_is_that_of_sorted_logits(rng):
    logits, labels = rng.normal(size=(40, 9)), rng.integers(0, 9, 40)
    ranked = np.argsort(-logits, axis=1)
    for top in (1, 5, 9):
        expected = [label not in row[:top] for label, row in zip(labels, ranked, strict=True)]
        found = is_top_error(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), top=top)
        np.testing.assert_array_equal(found, expected)
    # A network that cannot tell classes apart is wrong.
    np.testing.assert_array_equal(is_top_error(jnp.zeros((2, 9)), jnp.array([0, 8]), top=5), [1, 1])


def test_means_merge_as_if_computed_at_once(rng):
    values = rng.normal(size=13).astype(np.float32)
    whole = Mean.of(jnp.asarray(values))
    parts = Mean.of(jnp.asarray(values[:4])).merge(Mean.of(jnp.asarray(values[4:])))
    assert parts.value() == pytest.approx(whole.value(), rel=1e-6)
    assert whole.value() == pytest.approx(values.mean(), rel=1e-6)


def test_entries_of_weight_zero_do_not_count_whatever_they_hold():
    mean = Mean.of(jnp.asarray([1.0, jnp.nan, 3.0]), jnp.asarray([1.0, 0.0, 1.0]))
    assert mean.value() == 2.0


def test_the_mean_of_nothing_is_undefined():
    assert np.isnan(Mean.of(jnp.zeros(0)).value())


def test_sets_of_metrics_merge_by_name():
    first = {"a": Mean.of(jnp.ones(2)), "b": Mean.of(jnp.zeros(1))}
    second = {"a": Mean.of(4 * jnp.ones(1)), "b": Mean.of(jnp.ones(1))}
    assert metrics.compute(metrics.merge(first, second)) == {"a": 2.0, "b": 0.5}
