"""Measures of embeddings: linear probe, neighbours, retrieval, interpolation, averaged logits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import log_softmax

from adaptive_nets.ensembling import RunningAverage, calibrated_log_likelihood
from adaptive_nets.ensembling.embeddings import interpolate
from adaptive_nets.ensembling.linear_probe import LinearHead
from adaptive_nets.ensembling.neighbours import (
    Neighbours,
    nearest_neighbours,
    neighbour_votes,
    retrieval_scores,
)
from experiments.papers.metta.fields import NeighboursConfig
from experiments.shared.ensembling.configs import CalibrationConfig
from experiments.suite.experiment import Metric

PLAIN, SINGLE, MEAN = "plain", "single", "mean"
PREFIXES = {PLAIN: "", SINGLE: "augmented_", MEAN: "matched_"}
"""Prefixes of the measures of a probe, by the embeddings that it is trained on."""
NLL = "calibrated_nll"
# One division of the test set is enough for the many points of a curve.
_QUICK_CALIBRATION = CalibrationConfig(folds=2, repeats=1)


@dataclasses.dataclass(frozen=True)
class Quality:
    """Quality of class probabilities on a test set.

    Attributes:
        accuracy: %.
        nll: mean negative log-likelihood, nats per image.
        calibrated_nll: the same at the best temperature of the other fold, nats per image.
        correct: bool[N], images that are classified correctly.
    """

    accuracy: float
    nll: float
    calibrated_nll: float
    correct: np.ndarray

    def metrics(self, suffix: str, *, prefix: str = "", note: str = "") -> dict[str, Metric]:
        """Returns the three numbers as metrics, such as "accuracy.10"."""
        count = len(self.correct)
        return {
            f"{prefix}accuracy.{suffix}": Metric(self.accuracy, "%", count, note),
            f"{prefix}nll.{suffix}": Metric(self.nll, "nats", count, note),
            f"{prefix}{NLL}.{suffix}": Metric(
                self.calibrated_nll, "nats", count, f"{note} calibrated".strip()
            ),
        }


def quality(
    log_probs: np.ndarray, labels: np.ndarray, calibration: CalibrationConfig, *, seed: int = 0
) -> Quality:
    """Computes accuracy and log-likelihood of predictions.

    Args:
        log_probs: float[N, K], nats.
        labels: int[N].
        calibration: folds and repeats of the cross-validation.
        seed: seed of the divisions into folds.
    """
    correct = np.argmax(log_probs, axis=1) == labels
    calibrated = calibrated_log_likelihood(
        log_probs, labels, folds=calibration.folds, repeats=calibration.repeats, seed=seed
    )
    nll = -float(log_probs[np.arange(len(labels)), labels].mean())
    return Quality(100 * float(correct.mean()), nll, -calibrated, correct)


def gain(better: np.ndarray, worse: np.ndarray, name: str, *, note: str) -> dict[str, Metric]:
    """Compares the accuracies of two classifiers on the same images.

    Args:
        better: bool[N], correct predictions of the one.
        worse: bool[N], correct predictions of the other.
        name: name of the metric, such as "gain" or "gain.10".
        note: remark on the difference.

    Returns:
        Difference of the accuracies in percentage points, and its standard error over images as
        "gain_error" or "gain_error.10".
    """
    difference = better.astype(np.float64) - worse
    count = len(difference)
    error = difference.std(ddof=1) / math.sqrt(count) if count > 1 else 0.0
    head, dot, tail = name.partition(".")
    return {
        name: Metric(100 * float(difference.mean()), "%", count, note),
        f"{head}_error{dot}{tail}": Metric(
            100 * error, "%", count, "standard error over test images"
        ),
    }


def classify_by_neighbours(
    queries: np.ndarray, database: np.ndarray, labels: np.ndarray, query_labels: np.ndarray,
    config: NeighboursConfig,
) -> np.ndarray:  # fmt: skip
    """Classifies queries by their nearest neighbours.

    Args:
        queries: float[N, D].
        database: float[M, D].
        labels: int[M].
        query_labels: int[N].
        config: number and weights of neighbours.

    Returns:
        bool[N], correct predictions.
    """
    found: Neighbours = nearest_neighbours(
        queries, database, count=min(config.count, len(database))
    )
    classes = int(max(labels.max(), query_labels.max())) + 1
    votes = neighbour_votes(
        found, labels, num_classes=classes, temperature=config.temperature
    )  # fmt: skip
    return np.argmax(votes, axis=1) == query_labels


def neighbour_metrics(
    queries: Mapping[str, np.ndarray],
    databases: Mapping[str, np.ndarray],
    labels: np.ndarray,
    query_labels: np.ndarray,
    config: NeighboursConfig,
) -> dict[str, Metric]:
    """Measures every combination of queries and databases, such as "knn_accuracy.mean.plain".

    Args:
        queries: "plain" and "mean" -> float[N, D], embeddings of the test images.
        databases: "plain", and "mean" if it was computed -> float[M, D].
        labels: int[M].
        query_labels: int[N].
        config: number and weights of neighbours.
    """
    metrics: dict[str, Metric] = {}
    count = len(query_labels)
    for query, theirs in queries.items():
        for database, ours in databases.items():
            note = f"{query} queries, {database} database"
            correct = classify_by_neighbours(theirs, ours, labels, query_labels, config)
            found = retrieval_scores(theirs, ours, query_labels, labels)
            precision = found.mean_average_precision
            known = not math.isnan(precision)
            name = f"{query}.{database}"
            metrics |= {
                f"knn_accuracy.{name}": Metric(100 * float(correct.mean()), "%", count, note),
                f"recall_at_1.{name}": Metric(100 * found.recall_at_1, "%", count, note),
                f"mean_average_precision.{name}": Metric(
                    100 * precision if known else None, "%", count,
                    note if known else "no test image has a class of the training images",
                ),
            }  # fmt: skip
    return metrics


def single_views(
    logits: Sequence[np.ndarray],
    plain: np.ndarray,
    mean: np.ndarray,
    labels: np.ndarray,
    *,
    shares: np.ndarray,
    tick: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, dict[str, np.ndarray], float]:
    """Measures interpolations to the plain embedding, and averages of logits and probabilities.

    A linear head's logits of (1 − α)·x + α·y are (1 − α)·logits(x) + α·logits(y), so logits stand
    for embeddings.

    Args:
        logits: float[N, K] of the embeddings of each of S views.
        plain: float[N, K], logits of the plain embedding y.
        mean: float[N, K], logits of the mean embedding over the views.
        labels: int[N].
        shares: float[A], values of α.
        tick: called with the number of finished views.

    Returns:
        Log of the mean probability over views, float64[N, K]; curves "accuracy" (%), "nll" and
        "calibrated_nll" (nats), float[A], of the mean embedding and, with prefix "single_", of
        single views, averaged over views; and the largest difference between the mean of the
        views' logits and the logits of the mean embedding, relative to the largest logit.
    """
    curves = _interpolated(mean, plain, labels, shares)
    average, total = RunningAverage.empty(*plain.shape), np.zeros(plain.shape)
    singles: list[dict[str, np.ndarray]] = []
    for view in logits:
        average, total = average.add(log_softmax(view, axis=-1)), total + view
        singles.append(_interpolated(view, plain, labels, shares))
        tick(len(singles))
    for name in tuple(curves):
        curves[f"single_{name}"] = np.mean([single[name] for single in singles], axis=0)
    difference = float(np.max(np.abs(total / len(logits) - mean)) / np.max(np.abs(mean)))
    return average.log_mean(), curves, difference


def _interpolated(
    first: np.ndarray, plain: np.ndarray, labels: np.ndarray, shares: np.ndarray
) -> dict[str, np.ndarray]:
    points = [
        quality(log_softmax(interpolate(first, plain, share), axis=-1), labels, _QUICK_CALIBRATION)
        for share in map(float, shares)
    ]
    names = ("accuracy", "nll", NLL)
    return {name: np.array([getattr(point, name) for point in points]) for name in names}


def probe_qualities(
    head: LinearHead,
    embeddings: Mapping[str, np.ndarray],
    labels: np.ndarray,
    calibration: CalibrationConfig,
    *,
    seed: int,
) -> dict[str, Quality]:
    """Measures a linear head on several embeddings of the same images.

    Args:
        head: linear head.
        embeddings: name -> float[N, D].
        labels: int[N].
        calibration: folds and repeats of the cross-validation.
        seed: seed of the divisions.
    """
    return {
        name: quality(head.log_probs(features), labels, calibration, seed=seed)
        for name, features in embeddings.items()
    }
