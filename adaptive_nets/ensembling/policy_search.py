"""Greedy policy search: a test-time policy from predictions of a pool [molchanov2020, alg. 1]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adaptive_nets.ensembling.arguments import as_labels, as_log_probs
from adaptive_nets.ensembling.calibration import fit_temperature, scale_by_temperature
from adaptive_nets.ensembling.measures import FLOOR
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError

Criterion = Literal["cll", "ll", "accuracy"]
CRITERIA: tuple[Criterion, ...] = ("cll", "ll", "accuracy")

# Candidates within this distance of the best float32 score are compared again in float64.
_CLOSE = 2e-6
# Probabilities within this distance may compare otherwise in float64.
_TIED = 1e-6
_NEWTON_STEPS = 60
# Range of 1/T.
_INVERSE = (1e-6, 1e6)
# Elements of one block of the pool, about 64 MB.
_BLOCK = 1 << 24


class Selection(NamedTuple):
    """Result of a search.

    Attributes:
        chosen: int64[length], candidates in the order of selection, with replacement.
        scores: float64[length], criterion of the average of the candidates chosen so far.
    """

    chosen: np.ndarray
    scores: np.ndarray


def greedy_policy_search(
    log_probs: Float[Any, "B N K"],
    labels: Int[Any, " N"],
    *,
    length: int,
    criterion: Criterion = "cll",
) -> Int[np.ndarray, " length"]:
    """Selects candidates one by one, each the best addition to the average so far.

    Step t adds the candidate b that maximises the criterion of ((t − 1)·P + p_b)/t, with P the mean
    probability of those chosen before. Of equal candidates the first is taken, and candidates may
    be chosen again [molchanov2020, sec. 3].

    Args:
        log_probs: float[B, N, K], normalised log-probabilities of B candidates, nats.
        labels: int[N].
        length: number of selections.
        criterion: "cll", the log-likelihood at the best temperature, which is fitted and evaluated
            on the same objects as in the authors' search; "ll" without temperature; or "accuracy".
            1e-12 is added to averaged probabilities before their logarithm.

    Returns:
        int64[length]; its prefix of length k is the policy of k samples.

    Raises:
        UserError: log-probabilities that are not normalised, labels outside the classes, a length
            below 1, or an unknown criterion.
    """
    return search_policy(log_probs, labels, length=length, criterion=criterion).chosen


def search_policy(
    log_probs: Float[Any, "B N K"],
    labels: Int[Any, " N"],
    *,
    length: int,
    criterion: Criterion = "cll",
    after_step: Callable[[int, float], None] = lambda done, score: None,
) -> Selection:
    """Selects candidates as `greedy_policy_search` does, and returns their scores too.

    All candidates are scored at once in float32, the temperatures by Newton's method from those of
    the step before. Candidates close to the best are then compared in float64.

    Args:
        log_probs: float[B, N, K]; may be memory-mapped.
        labels: int[N].
        length: number of selections.
        criterion: see `greedy_policy_search`.
        after_step: called with the number of selections and the score.

    Raises:
        UserError: as `greedy_policy_search`.
    """
    if criterion not in CRITERIA:
        raise UserError(f"criterion is {criterion!r}; expected one of {', '.join(CRITERIA)}")
    length = as_integer("length", length)
    if np.ndim(log_probs) != 3:
        raise UserError(
            f"log_probs have shape {np.shape(log_probs)}; expected [B, N, K], candidates, objects "
            "and classes"
        )
    count, objects, classes = np.shape(log_probs)
    if not count * objects * classes:
        raise UserError(
            f"log_probs have shape {np.shape(log_probs)}; expected at least one candidate, object "
            "and class"
        )
    labels = as_labels(labels, objects=objects, classes=classes)
    probs = np.empty((classes, count, objects), np.float32)
    for i in range(count):
        probs[:, i] = np.exp(as_log_probs(log_probs[i])).T
    score_all = _Scores(probs, labels, criterion)
    total = np.zeros((objects, classes))
    chosen, scores = [], []
    for step in range(length):
        lower, upper = score_all(total, step)
        close = np.flatnonzero(upper >= lower.max())
        exact = [
            _exact_score((total + _exact_probs(log_probs[b])) / (step + 1), labels, criterion)
            for b in close
        ] if len(close) > 1 else [0.0]  # fmt: skip
        best = int(close[int(np.argmax(exact))])
        total += _exact_probs(log_probs[best])
        chosen.append(best)
        scores.append(_exact_score(total / (step + 1), labels, criterion))
        after_step(step + 1, scores[-1])
    return Selection(np.array(chosen), np.array(scores))


def _exact_probs(log_probs: Any) -> np.ndarray:
    return np.exp(np.asarray(log_probs, np.float64))


def _exact_score(probs: np.ndarray, labels: np.ndarray, criterion: Criterion) -> float:
    """Returns the criterion of averaged probabilities in float64."""
    if criterion == "accuracy":
        return float(np.mean(probs.argmax(axis=1) == labels))
    if criterion == "ll":
        return float(np.mean(np.log(probs[np.arange(labels.size), labels] + FLOOR)))
    log_probs = np.log(probs + FLOOR)
    scaled = scale_by_temperature(log_probs, fit_temperature(log_probs, labels))
    return float(np.mean(scaled[np.arange(labels.size), labels]))


class _Scores:
    """Criterion of every candidate's addition to an average, in blocks of candidates.

    Probabilities are float32[K, B, N]: sums over classes then run over whole vectors of objects.
    """

    def __init__(self, probs: np.ndarray, labels: np.ndarray, criterion: Criterion):
        self._probs = probs
        self._labels = labels
        self._criterion = criterion
        count, objects = probs.shape[1:]
        size = max(1, _BLOCK // (objects * len(probs)))
        self._blocks = [slice(start, start + size) for start in range(0, count, size)]
        self._inverse = np.ones(count, np.float32)

    def __call__(self, total: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns float64[B] twice, bounds of the scores of (total + p_b) / (step + 1)."""
        mean = jnp.asarray((total / (step + 1)).T, jnp.float32)
        weight = jnp.float32(1 / (step + 1))
        if self._criterion == "cll":
            found = self._calibrated(mean, weight)
            return found - _CLOSE / 2, found + _CLOSE / 2
        scores = _accuracies if self._criterion == "accuracy" else _likelihoods
        parts = [scores(self._probs[:, block], mean, weight, self._labels)
                 for block in self._blocks]  # fmt: skip
        lower, upper = np.concatenate([np.asarray(p, np.float64) for p in parts], axis=1)
        return lower, upper

    def _calibrated(self, mean: Array, weight: Array) -> np.ndarray:
        """Returns log-likelihoods at the best temperatures, by Newton's method on β = 1/T.

        They are concave in β. A step of all candidates gives a lower bound of each, its value, and
        an estimate of what its best β gains. Those that are far from it, or could be best by twice
        this gain, take further steps.
        """
        candidates = np.arange(self._inverse.size)
        found = np.full(candidates.size, -np.inf)
        self._inverse = np.clip(self._inverse, 0.1, 10.0)
        for _ in range(_NEWTON_STEPS):
            value, slope, curvature = self._moments(candidates, mean, weight)
            change = slope / np.maximum(curvature, 1e-12)
            before = self._inverse[candidates]
            # At most a factor of two: Newton's steps from far away go too far.
            after = np.clip(before + change, before / 2, before * 2)
            after = np.clip(after, *_INVERSE)
            self._inverse[candidates] = after
            gain = np.maximum(slope * (after - before), 0)
            far = np.abs(after - before) > 0.1 * before
            possible = far | (value + gain >= value.max() - _CLOSE)
            found[:] = -np.inf
            found[candidates] = value
            if gain[possible].max() <= _CLOSE / 4 and not far.any():
                break
            candidates = candidates[possible]
        return found

    def _moments(self, candidates: np.ndarray, mean: Array, weight: Array) -> np.ndarray:
        parts = []
        whole = candidates.size == self._inverse.size
        size = self._blocks[0].stop
        for start in range(0, candidates.size, size):
            part = candidates[start : start + size]
            block = self._probs[:, start : start + size] if whole else self._probs[:, part]
            # A power of two of candidates, so that few programs are compiled.
            more = 0 if whole else (1 << (len(part) - 1).bit_length()) - len(part)
            block = np.pad(block, ((0, 0), (0, more), (0, 0)), mode="edge") if more else block
            beta = np.pad(self._inverse[part], (0, more), mode="edge")
            moments = np.asarray(_moments(block, mean, weight, self._labels, beta), np.float64)
            parts.append(moments[:, : len(part)])
        return np.concatenate(parts, axis=1)


@jax.jit
def _accuracies(probs: Array, mean: Array, weight: Array, labels: Array) -> Array:
    """Returns bounds float32[2, B]: objects whose two largest classes are close may be either."""
    average = mean[:, None] + weight * probs
    of_label = _of_label(average, labels)
    classes = jnp.arange(len(average))[:, None, None]
    others = jnp.max(jnp.where(classes == labels[None, None], -jnp.inf, average), axis=0)
    surely, possibly = of_label > others + _TIED, of_label >= others - _TIED
    return jnp.stack([jnp.mean(surely, axis=-1), jnp.mean(possibly, axis=-1)])


@jax.jit
def _likelihoods(probs: Array, mean: Array, weight: Array, labels: Array) -> Array:
    """Returns bounds float32[2, B]."""
    of_label = _of_label(mean[:, None], labels) + weight * _of_label(probs, labels)
    found = jnp.mean(jnp.log(of_label + FLOOR), axis=-1)
    return jnp.stack([found - _CLOSE / 2, found + _CLOSE / 2])


@jax.jit
def _moments(probs: Array, mean: Array, weight: Array, labels: Array, beta: Array) -> Array:
    """Returns log-likelihood, its slope and its negative curvature at β, float32[3, B]."""
    logs = jnp.log(mean[:, None] + weight * probs + FLOOR)
    logs = logs - jnp.max(logs, axis=0, keepdims=True)
    target = jnp.mean(_of_label(logs, labels), axis=-1)
    weights = jnp.exp(beta[None, :, None] * logs)
    norm = jnp.sum(weights, axis=0)
    first = jnp.sum(weights * logs, axis=0) / norm
    second = jnp.sum(weights * logs**2, axis=0) / norm
    value = beta * target - jnp.mean(jnp.log(norm), axis=-1)
    slope = target - jnp.mean(first, axis=-1)
    return jnp.stack([value, slope, jnp.mean(second - first**2, axis=-1)])


def _of_label(values: Array, labels: Array) -> Array:
    return jnp.take_along_axis(values, labels[None, None, :], axis=0)[0]
