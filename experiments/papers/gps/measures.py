"""Scores of policies over divisions of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptive_nets.ensembling import Policy
from experiments.papers.gps.evaluation import Curve
from experiments.shared.ensembling.configs import CalibrationConfig
from experiments.shared.ensembling.scores import CALIBRATED, CLL, UNITS, Scores, score
from experiments.suite.experiment import Metric

PLAIN, CROPS, GREEDY = "plain", "crops", "greedy"


class PolicyScores:
    """Measures of every policy, number of views and division of the images.

    Args:
        labels: int[N].
        masks: bool[N] of each division, the evaluated images.
        calibration: folds and repeats of the cross-validation.
        seed: seed of the divisions into folds.
    """

    def __init__(
        self,
        labels: np.ndarray,
        masks: Sequence[np.ndarray],
        calibration: CalibrationConfig,
        seed: int,
    ):
        self._labels, self._masks = labels, masks
        self._calibration, self._seed = calibration, seed
        self._scores: dict[str, dict[int, list[Scores]]] = {}
        self._notes: dict[str, str] = {}

    def add(self, name: str, curves: Sequence[Curve], note: str = "") -> None:
        """Adds a policy with one curve for every division, or one for all."""
        self._notes[name] = note
        self._scores[name] = {
            count: [
                score(
                    curves[min(i, len(curves) - 1)][count][mask], self._labels[mask],
                    self._calibration, seed=self._seed,
                )
                for i, mask in enumerate(self._masks)
            ]
            for count in curves[0]
        }  # fmt: skip

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the policies."""
        return tuple(self._scores)

    def counts(self, name: str) -> tuple[int, ...]:
        """Returns the numbers of views of a policy."""
        return tuple(sorted(self._scores[name]))

    def values(self, name: str, measure: str, count: int) -> np.ndarray:
        """Returns a measure in each division, float[splits]."""
        return np.array([s.values[measure] for s in self._scores[name][count]])

    def calibrated(self, name: str, count: int) -> np.ndarray:
        """Returns the calibrated log-likelihood in each division, float[splits]."""
        return self.values(name, CLL, count)

    def objects(self) -> int:
        """Returns the number of evaluated images of a division."""
        return int(self._masks[0].sum())

    def note(self, name: str) -> str:
        """Returns the note of a policy."""
        return self._notes[name]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns "POLICY/counts", int[C], and "POLICY/MEASURE", float[splits, C]."""
        arrays: dict[str, np.ndarray] = {}
        for name in self.names:
            counts = self.counts(name)
            arrays[f"{name}/counts"] = np.array(counts)
            for measure in self._scores[name][counts[0]][0].values:
                arrays[f"{name}/{measure}"] = np.stack(
                    [self.values(name, measure, count) for count in counts], axis=1
                )
        return arrays


def policy_metrics(
    scores: PolicyScores, *, pool: int, policies: Sequence[Policy], magnitudes: Sequence[float]
) -> dict[str, Metric]:
    """Returns means over divisions, gains over crops and flips, and counts of the policies.

    Args:
        scores: measures of every policy.
        pool: number of candidates.
        policies: policy that each search found.
        magnitudes: M* of each division.
    """
    metrics = {"pool": Metric(float(pool), "candidates")}
    objects = scores.objects()
    for name in scores.names:
        for count in scores.counts(name):
            for measure in ("error", "ll", CLL, "ece", CALIBRATED + "brier"):
                values = scores.values(name, measure, count)
                note = " ".join(
                    [scores.note(name), f"mean over {len(values)} divisions{_deviation(values)}"]
                ).strip()
                unit = UNITS[measure.removeprefix(CALIBRATED)]
                metrics[f"{name}.{measure}.{count}"] = Metric(
                    float(values.mean()), unit, objects, note
                )
    for count in scores.counts(GREEDY):
        if count in scores.counts(CROPS):
            gains = scores.calibrated(GREEDY, count) - scores.calibrated(CROPS, count)
            metrics[f"gain.{count}"] = Metric(
                float(gains.mean()), "nats", len(gains),
                f"calibrated log-likelihood over crops and flips{_deviation(gains)}",
            )  # fmt: skip
    for key, value in policies[0].summary().items():
        unit = "share" if key == "strong" else "sub-policies"
        metrics[f"policy_{key}"] = Metric(float(value), unit, 1, "of the first division")
    listed = ", ".join(f"{magnitude:g}" for magnitude in magnitudes)
    metrics["best_magnitude"] = Metric(
        float(np.mean(magnitudes)), "M", len(magnitudes), f"M* of the divisions: {listed}"
    )
    return metrics


def _deviation(values: np.ndarray) -> str:
    return f", deviation {values.std(ddof=1):.4f}" if len(values) > 1 else ""
