"""Scores of three saliency maps: the centre baseline, the ponder map, and both together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from adaptive_nets.data.fixations import FixationExample
from adaptive_nets.saliency import (
    Choice,
    auc_shuffled,
    cc,
    choose_parameters,
    fixation_density,
    fixations_from_density,
    kl,
    nss,
    sim,
    unit_scaled,
)
from experiments.papers.sact_saliency.fields import FixationsConfig, SmoothingConfig
from experiments.suite.experiment import Metric

METHODS = {
    "centre": "centre baseline",
    "ponder": "ponder map alone",
    "both": "ponder map with centre",
}
"""Names in records, and in tables."""
MEASURES = {
    "auc_judd": ("AUC-Judd", "%"),
    "auc_shuffled": ("shuffled AUC", "%"),
    "nss": ("NSS", "deviations"),
    "cc": ("CC", "correlation"),
    "sim": ("SIM", "share"),
    "kl": ("KL", "nats"),
}
"""Measures with titles and units."""
# One degree of visual angle as a share of the longer side, as in MIT1003.
_DEGREE = 35 / 1024


@dataclasses.dataclass(frozen=True)
class HumanMaps:
    """Fixations on one picture.

    Attributes:
        points: bool[H, W], single fixations, measured or derived.
        density: float[H, W], blurred fixations.
        derived: whether the single fixations are derived from the blurred ones.
    """

    points: np.ndarray
    density: np.ndarray
    derived: bool

    @classmethod
    def of(cls, example: FixationExample, config: FixationsConfig, *, seed: int) -> HumanMaps:
        """Completes the fixations of an example: each form is derived where it is absent.

        Args:
            example: picture with at least one form of its fixations.
            config: how single fixations are derived.
            seed: seed of those that are drawn.
        """
        points, density = example.points, example.density
        if points is None:
            assert density is not None
            drawn = fixations_from_density(
                density, rule=config.rule, count=config.count, share=config.share,
                radius=config.radius, seed=seed,
            )  # fmt: skip
            return cls(drawn, density, derived=True)
        if density is None:
            density = fixation_density(points, sigma=_DEGREE * max(points.shape))
        return cls(points, density, derived=False)

    def places(self) -> np.ndarray:
        """Returns the fixations as shares of height and width, float[F, 2]."""
        return (np.argwhere(self.points) + 0.5) / self.points.shape


def counted(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Counts fixations at each pixel of a picture of another size.

    Args:
        places: float[F, 2], shares of height and width.
        shape: (H, W).

    Returns:
        float[H, W].
    """
    rows = np.minimum((places * shape).astype(np.int64), np.array(shape) - 1)
    flat = np.ravel_multi_index((rows[:, 0], rows[:, 1]), (shape[0], shape[1]))
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def other_measures(saliency: np.ndarray, human: HumanMaps, others: np.ndarray) -> dict[str, float]:
    """Computes the measures other than AUC-Judd; maps are scaled to [0, 1] for SIM and KL.

    Args:
        saliency: float[H, W].
        human: fixations on the picture.
        others: float[H, W], fixations on other pictures.
    """
    scaled = unit_scaled(saliency)
    # A constant map is a uniform distribution.
    scaled = scaled if scaled.any() else np.ones_like(scaled)
    return {
        "auc_shuffled": 100 * auc_shuffled(saliency, human.points, others),
        "nss": nss(saliency, human.points),
        "cc": cc(saliency, human.density),
        "sim": sim(scaled, human.density),
        "kl": kl(scaled, human.density),
    }


@dataclasses.dataclass(frozen=True)
class Division:
    """Result of one division of the pictures.

    Attributes:
        reporting: int[M], pictures that report.
        centre: float[M], AUC-Judd of the centre baseline.
        ponder: choice and scores of the ponder map alone; None without a network.
        both: choice and scores of the ponder map with the centre bias; None without a network.
    """

    reporting: np.ndarray
    centre: np.ndarray
    ponder: Choice | None = None
    both: Choice | None = None

    def scores(self, method: str) -> np.ndarray | None:
        """Returns the AUC-Judd of each reporting picture, by a name of `METHODS`."""
        if method == "centre":
            return self.centre
        choice = self.ponder if method == "ponder" else self.both
        return None if choice is None else choice.scores


def divide(
    halves: np.ndarray, centre: np.ndarray, grid: np.ndarray | None, smoothing: SmoothingConfig
) -> list[Division]:
    """Selects parameters on one half of each division, and reports on the other.

    Args:
        halves: bool[R, N], True for the pictures that select.
        centre: float[N], scores of the centre baseline.
        grid: float[N, S, W], scores at all candidates; None without a network.
        smoothing: the candidates.
    """
    divisions = []
    for selecting in halves:
        reporting = np.flatnonzero(~selecting)
        if grid is None:
            divisions.append(Division(reporting, centre[reporting]))
            continue
        alone = smoothing.centre_weights.index(0.0)
        ponder = choose_parameters(grid[:, :, alone : alone + 1], selecting)
        both = choose_parameters(grid, selecting)
        divisions.append(Division(reporting, centre[reporting], ponder, both))
    return divisions


Measured = Callable[[str, Division], Mapping[str, Sequence[float]]]
"""(method, division) -> measure -> value of each reporting picture."""


def division_metrics(
    divisions: Sequence[Division], smoothing: SmoothingConfig, measured: Measured
) -> dict[str, Metric]:
    """Returns the metrics: means over divisions, and their standard deviations.

    Args:
        divisions: results of the divisions.
        smoothing: the candidates.
        measured: computes the measures other than AUC-Judd.
    """
    metrics: dict[str, Metric] = {}
    count = sum(len(division.reporting) for division in divisions)
    methods = [m for m in METHODS if divisions[0].scores(m) is not None]
    for method in methods:
        columns: dict[str, list[float]] = {}
        for division in divisions:
            scores = division.scores(method)
            assert scores is not None
            columns.setdefault("auc_judd", []).append(100 * float(scores.mean()))
            for name, values in measured(method, division).items():
                columns.setdefault(name, []).append(float(np.mean(values)))
        for name, values in columns.items():
            unit = MEASURES[name][1]
            note = f"{METHODS[method]}, mean over {len(divisions)} divisions"
            metrics[f"{name}.{method}"] = Metric(float(np.mean(values)), unit, count, note)
            metrics[f"{name}_std.{method}"] = Metric(
                float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, unit, len(values),
                "over divisions",
            )  # fmt: skip
    best = "both" if "both" in methods else "centre"
    value = metrics[f"auc_judd.{best}"]
    metrics["auc_judd"] = value
    if best == "both":
        metrics |= _gains(divisions, smoothing)
    return metrics


def _gains(divisions: Sequence[Division], smoothing: SmoothingConfig) -> dict[str, Metric]:
    """Returns how much the ponder map adds to the centre, and the selected parameters."""
    metrics: dict[str, Metric] = {}
    for method in ("ponder", "both"):
        found = []
        for division in divisions:
            scores = division.scores(method)
            assert scores is not None
            found.append(100 * (scores - division.centre))
        means = np.array([gain.mean() for gain in found])
        errors = [gain.std(ddof=1) / np.sqrt(gain.size) if gain.size > 1 else 0.0 for gain in found]
        count = sum(gain.size for gain in found)
        name = METHODS[method]
        metrics[f"gain.{method}"] = Metric(
            float(means.mean()), "points", count, f"AUC-Judd, {name} above the centre baseline"
        )
        deviation = float(means.std(ddof=1)) if len(means) > 1 else 0.0
        metrics[f"gain_std.{method}"] = Metric(deviation, "points", len(means), "over divisions")
        metrics[f"gain_error.{method}"] = Metric(
            float(np.mean(errors)), "points", count, "standard error over pictures of a division"
        )
        metrics[f"better.{method}"] = Metric(
            float(np.sum(means > 0)),
            "divisions",
            len(means),
            f"{name} is above the centre baseline",
        )
    for i, division in enumerate(divisions):
        assert division.both is not None
        assert division.ponder is not None
        metrics[f"sigma.{i}"] = Metric(
            smoothing.sigmas[division.both.sigma], "share", 1, "of the longer side, with the centre"
        )
        metrics[f"centre_weight.{i}"] = Metric(
            smoothing.centre_weights[division.both.centre_weight], "weight", 1, "of the centre bias"
        )
        metrics[f"sigma_alone.{i}"] = Metric(
            smoothing.sigmas[division.ponder.sigma], "share", 1, "of the longer side, alone"
        )
    return metrics
