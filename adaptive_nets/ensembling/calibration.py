"""Temperature scaling, and measures at the best temperature [ashukha2020, sec. 4.1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize
from scipy.special import log_softmax

from adaptive_nets.ensembling import measures
from adaptive_nets.ensembling.arguments import as_labels, as_logits
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError

Measure = Callable[[np.ndarray, np.ndarray], float]
"""(log-probabilities float[N, K], labels int[N]) -> number."""

MEASURES: Mapping[str, Measure] = {
    "ll": measures.mean_log_likelihood,
    "error": measures.error_rate,
    "brier": measures.brier_score,
    "ece": measures.expected_calibration_error,
    "sce": measures.static_calibration_error,
    "tace": measures.adaptive_calibration_error,
    "arc": measures.accuracy_rejection_area,
}
"""Measures of this package by name."""

# Bounds of log T, relative to the distance of the two largest logits.
_LOG_RANGE = math.log(1e4)
_TOLERANCE = 1e-6


def fit_temperature(logits: Float[Any, "N K"], labels: Int[Any, " N"]) -> float:
    """Finds the temperature T that maximises the log-likelihood of softmax(logits / T).

    The log-likelihood is concave in 1/T, so the bounded search over log T finds its maximum, within
    a factor of 1e4 of the typical distance between an object's two largest logits. If every object
    is classified correctly, any low T is as good, and a small one is returned.

    Args:
        logits: float[N, K], logits or log-probabilities; −inf for impossible classes.
        labels: int[N].

    Returns:
        T > 0; 1 if no logit differs from another of its object.

    Raises:
        UserError: logits of another shape or without a finite one, or labels outside the classes.
    """
    logits = as_logits(logits)
    objects, classes = logits.shape
    return _best_temperature(logits, as_labels(labels, objects=objects, classes=classes))


def scale_by_temperature(logits: Float[Any, "N K"], temperature: float) -> np.ndarray:
    """Returns log softmax(logits / T), float64[N, K], nats.

    Args:
        logits: float[N, K].
        temperature: T > 0.
    """
    return log_softmax(np.asarray(logits, np.float64) / temperature, axis=-1)


def calibrated_log_likelihood(
    logits: Float[Any, "N K"],
    labels: Int[Any, " N"],
    *,
    folds: int = 2,
    repeats: int = 5,
    seed: int = 0,
) -> float:
    """Computes the calibrated log-likelihood (CLL) by cross-validation on the test set.

    The objects are divided into folds at random; the log-likelihood of a fold is taken at the
    temperature that is best for the others. The result is the mean over folds and repeats
    [ashukha2020, sec. 4.1].

    Args:
        logits: float[N, K], logits or log-probabilities of an averaged prediction.
        labels: int[N].
        folds: number of folds, from 2 to N.
        repeats: number of random divisions.
        seed: seed of the divisions.

    Returns:
        Mean log-likelihood in nats per object; higher is better.

    Raises:
        UserError: more folds than objects, no repeats, or invalid logits or labels.
    """
    found = calibrated_measures(
        logits, labels, {"ll": measures.mean_log_likelihood}, folds=folds, repeats=repeats,
        seed=seed,
    )  # fmt: skip
    return found["ll"]


def calibrated_measures(
    logits: Float[Any, "N K"],
    labels: Int[Any, " N"],
    chosen: Mapping[str, Measure] = MEASURES,
    *,
    folds: int = 2,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Computes several measures at the temperature of the other folds.

    Args:
        logits: float[N, K], logits or log-probabilities of an averaged prediction.
        labels: int[N].
        chosen: measures by name.
        folds: number of folds, from 2 to N.
        repeats: number of random divisions.
        seed: seed of the divisions.

    Returns:
        Mean of each measure over folds and repeats, and the mean temperature as "temperature".

    Raises:
        UserError: more folds than objects, no repeats, or invalid logits or labels.
    """
    logits = as_logits(logits)
    objects, classes = logits.shape
    labels = as_labels(labels, objects=objects, classes=classes)
    found: dict[str, list[float]] = {name: [] for name in (*chosen, "temperature")}
    for fold, rest in divisions(objects, folds=folds, repeats=repeats, seed=seed):
        temperature = _best_temperature(logits[rest], labels[rest])
        scaled = scale_by_temperature(logits[fold], temperature)
        for name, measure in chosen.items():
            found[name].append(measure(scaled, labels[fold]))
        found["temperature"].append(temperature)
    return {name: float(np.mean(values)) for name, values in found.items()}


def divisions(
    objects: int, *, folds: int, repeats: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (fold, rest), sorted indices int64, for every fold of every random division.

    Raises:
        UserError: fewer than two folds, more folds than objects, or no repeats.
    """
    folds, repeats = as_integer("folds", folds, at_least=2), as_integer("repeats", repeats)
    if folds > objects:
        raise UserError(f"folds is {folds}; expected at most {objects}, the number of objects")
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        parts = np.array_split(generator.permutation(objects), folds)
        for i, part in enumerate(parts):
            rest = np.concatenate([p for j, p in enumerate(parts) if j != i])
            yield np.sort(part), np.sort(rest)


def _best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    gaps = logits.max(axis=1, keepdims=True) - logits
    # The smallest distance of each object: masked classes may be at any distance.
    smallest = np.where(gaps > 0, gaps, np.inf).min(axis=1)
    smallest = smallest[np.isfinite(smallest)]
    if not smallest.size:
        return 1.0
    scale = float(np.median(smallest))
    # Deviations from the maximum, so that nothing overflows at a low temperature.
    of_label = gaps[np.arange(labels.size), labels] / scale
    of_label = of_label[np.isfinite(of_label)]
    gaps = -(gaps / scale)

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        log_sum = np.log(np.exp(gaps * inverse).sum(axis=1)).mean()
        return float(log_sum + inverse * of_label.sum() / labels.size)

    found = optimize.minimize_scalar(
        loss, bounds=(-_LOG_RANGE, _LOG_RANGE), method="bounded", options={"xatol": _TOLERANCE}
    )
    return scale * math.exp(float(found.x))
