"""Measures of averaged predictions, with and without calibration, as metrics and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from adaptive_nets.ensembling import MEASURES, calibrated_measures
from experiments.shared.ensembling.configs import CalibrationConfig
from experiments.suite.experiment import Metric

UNITS = {
    "ll": "nats", "error": "%", "brier": "brier", "ece": "%", "sce": "%", "tace": "%", "arc": "%",
    "temperature": "T",
}  # fmt: skip
"""Unit of each measure; a share is recorded in percent."""
CALIBRATED = "calibrated_"
"""Prefix of measures at the best temperature of the other half of the objects."""
CLL = CALIBRATED + "ll"


class Scores(NamedTuple):
    """Measures of one averaged prediction, by name; calibrated ones have the prefix.

    Attributes:
        values: in the units of `UNITS`.
        objects: number of objects.
    """

    values: dict[str, float]
    objects: int

    def metrics(self, suffix: str = "", note: str = "") -> dict[str, Metric]:
        """Returns the measures as metrics, with a suffix such as ".20"."""
        return {
            name + suffix: Metric(
                value, UNITS[name.removeprefix(CALIBRATED)], self.objects,
                note if not name.startswith(CALIBRATED) else f"{note} calibrated".strip(),
            )
            for name, value in self.values.items()
        }  # fmt: skip


def score(
    log_probs: np.ndarray, labels: np.ndarray, calibration: CalibrationConfig, *, seed: int = 0
) -> Scores:
    """Computes every measure of predictions, without and with calibration.

    Args:
        log_probs: float[N, K], normalised log-probabilities, nats.
        labels: int[N].
        calibration: folds and repeats of the cross-validation.
        seed: seed of the divisions into folds.
    """
    plain = {name: measure(log_probs, labels) for name, measure in MEASURES.items()}
    fitted = calibrated_measures(
        log_probs, labels, folds=calibration.folds, repeats=calibration.repeats, seed=seed
    )
    values = {**plain, **{CALIBRATED + name: value for name, value in fitted.items()}}
    return Scores({name: _scaled(name, value) for name, value in values.items()}, len(labels))


def _scaled(name: str, value: float) -> float:
    return 100 * value if UNITS[name.removeprefix(CALIBRATED)] == "%" else value


def score_arrays(scores: Mapping[int, Scores], prefix: str = "") -> dict[str, np.ndarray]:
    """Returns curves over the number of views.

    Args:
        scores: number of views -> measures.
        prefix: put before every name, such as "other/".

    Returns:
        "counts", int[C], and every measure, float[C].
    """
    counts = sorted(scores)
    names = scores[counts[0]].values
    return {
        f"{prefix}counts": np.array(counts),
        **{f"{prefix}{n}": np.array([scores[c].values[n] for c in counts]) for n in names},
    }
