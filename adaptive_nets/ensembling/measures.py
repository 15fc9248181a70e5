"""Measures of predicted probabilities, float64 throughout [ashukha2020, sec. 4 and app. C]."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from adaptive_nets.ensembling.arguments import as_labels, as_log_probs
from adaptive_nets.runtime.arguments import as_integer

FLOOR = 1e-12
"""Added to a probability before its logarithm, as in the authors' code."""
_ARC_STEPS = 1000
_TACE_THRESHOLD = 1e-3

LogProbs = Float[Any, "N K"]
Labels = Int[Any, " N"]


def log_likelihood(log_probs: LogProbs, labels: Labels) -> float:
    """Computes the mean log-likelihood, (1/N) Σ log(p(y) + 1e-12), in nats; higher is better.

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].

    Raises:
        UserError: log-probabilities that are not normalised, or labels outside the classes.
    """
    log_probs, labels = _checked(log_probs, labels)
    return mean_log_likelihood(log_probs, labels)


def mean_log_likelihood(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Computes `log_likelihood` of arrays that are known to be valid."""
    chosen = np.take_along_axis(log_probs, labels[:, None], axis=1)
    return float(np.mean(np.log(np.exp(chosen) + FLOOR)))


def error_rate(log_probs: LogProbs, labels: Labels) -> float:
    """Computes the share of objects whose most probable class is wrong; ties go to the first.

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].
    """
    log_probs, labels = _checked(log_probs, labels)
    return float(np.mean(log_probs.argmax(axis=1) != labels))


def brier_score(log_probs: LogProbs, labels: Labels) -> float:
    """Computes the Brier score, the mean over objects of Σ_c (p_c − 1[c = y])²; lower is better.

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].

    Returns:
        Number in [0, 2].
    """
    log_probs, labels = _checked(log_probs, labels)
    difference = np.exp(log_probs)
    difference[np.arange(labels.size), labels] -= 1
    return float(np.mean(np.sum(difference**2, axis=1)))


def expected_calibration_error(log_probs: LogProbs, labels: Labels, *, bins: int = 15) -> float:
    """Computes the expected calibration error, Σ_b (n_b/N)·|accuracy_b − confidence_b|.

    The bins (b/B, (b + 1)/B] divide the largest probability of an object evenly [guo2017].

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].
        bins: number of bins B.

    Returns:
        Number in [0, 1]; lower is better.
    """
    log_probs, labels = _checked(log_probs, labels)
    confidence = np.exp(log_probs.max(axis=1))
    correct = log_probs.argmax(axis=1) == labels
    return _binned_gap(confidence, correct, as_integer("bins", bins))


def static_calibration_error(log_probs: LogProbs, labels: Labels, *, bins: int = 15) -> float:
    """Computes the static calibration error, the mean over classes of their calibration errors.

    Every class is a binary problem with bins of its own probability; a probability of 0 is in the
    first bin [nixon2019, eq. 3].

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].
        bins: number of bins.

    Returns:
        Number in [0, 1]; lower is better.
    """
    log_probs, labels = _checked(log_probs, labels)
    bins = as_integer("bins", bins)
    probs = np.exp(log_probs)
    gaps = [_binned_gap(probs[:, c], labels == c, bins) for c in range(probs.shape[1])]
    return float(np.mean(gaps))


def adaptive_calibration_error(
    log_probs: LogProbs, labels: Labels, *, bins: int = 15, threshold: float = _TACE_THRESHOLD
) -> float:
    """Computes the thresholded adaptive calibration error, TACE [nixon2019, sec. 3.3].

    Every class has bins of equal numbers of objects among those whose probability exceeds the
    threshold; the result is the mean of |accuracy − confidence| over bins and classes.

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].
        bins: number of bins of a class.
        threshold: probabilities up to this one are left out.

    Returns:
        Number in [0, 1]; lower is better. Classes and bins without objects count as 0.
    """
    log_probs, labels = _checked(log_probs, labels)
    bins = as_integer("bins", bins)
    probs = np.exp(log_probs)
    total = 0.0
    for c in range(probs.shape[1]):
        chosen = np.flatnonzero(probs[:, c] > threshold)
        chosen = chosen[np.argsort(probs[chosen, c], kind="stable")]
        for part in np.array_split(chosen, bins):
            if part.size:
                total += abs(np.mean(labels[part] == c) - np.mean(probs[part, c]))
    return float(total / (bins * probs.shape[1]))


def accuracy_rejection_area(log_probs: LogProbs, labels: Labels) -> float:
    """Computes the area above the accuracy-rejection curve, AU-ARC; lower is better.

    The curve is the accuracy of the most confident objects that remain after a share of 0 to 1 is
    rejected, in 1,000 steps; at least one object remains. The result is 1 minus the area below it
    by the trapezoidal rule, so perfect predictions have 0.

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].

    Returns:
        Number in [0, 1].
    """
    log_probs, labels = _checked(log_probs, labels)
    order = np.argsort(-log_probs.max(axis=1), kind="stable")
    correct = (log_probs.argmax(axis=1) == labels)[order]
    accuracy = np.cumsum(correct) / np.arange(1, correct.size + 1)
    rejected = np.arange(_ARC_STEPS + 1)
    kept = np.maximum(1, correct.size - rejected * correct.size // _ARC_STEPS)
    return float(1 - np.trapezoid(accuracy[kept - 1], rejected / _ARC_STEPS))


def _binned_gap(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Returns Σ_b (n_b/N)·|accuracy_b − confidence_b| over bins of equal width."""
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / confidence.size)


def _checked(log_probs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    log_probs = as_log_probs(log_probs)
    objects, classes = log_probs.shape
    return log_probs, as_labels(labels, objects=objects, classes=classes)
