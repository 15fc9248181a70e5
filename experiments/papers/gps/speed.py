"""Runs one seed: the time of the search alone, on predictions that are drawn."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from adaptive_nets.data.splits import Dataset
from adaptive_nets.ensembling import search_policy
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.gps.fields import DrawnConfig, SpeedConfig
from experiments.suite.experiment import Metric, Outcome

# Distance of the right class's logit from the others, in their deviations.
_RIGHT = 2.5


def run(
    config: SpeedConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Times the search; see `experiments.suite.experiment.Runner`."""
    del dataset, directory
    values = config.drawn
    log_probs, labels = drawn_predictions(values, seed=seed)
    progress.start(title, done=0, total=values.length)
    times = [time.monotonic()]

    def after_step(done: int, score: float) -> None:
        times.append(time.monotonic())
        progress.update(done, {"cll": score})

    search_policy(log_probs, labels, length=values.length, after_step=after_step)
    progress.finish()
    seconds = times[-1] - times[0]
    note = (
        f"{values.candidates:,} candidates, {values.objects:,} objects, {values.classes} classes, "
        f"{values.length} selections"
    )
    metrics = {
        "search_seconds": Metric(seconds, "s", values.length, note),
        "step_seconds": Metric(float(np.median(np.diff(times))), "s", values.length, "median"),
    }
    return Outcome(metrics, {"step_seconds": np.diff(times)}, seconds=seconds, steps=0)


def drawn_predictions(values: DrawnConfig, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws log-probabilities of candidates that agree on easy objects and differ on hard ones.

    Args:
        values: sizes.
        seed: seed of the draw.

    Returns:
        float32[B, N, K] and int64[N].
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, values.classes, values.objects)
    ease = generator.uniform(0, 2 * _RIGHT, values.objects)
    common = generator.normal(size=(values.objects, values.classes))
    common[np.arange(values.objects), labels] += ease
    shape = (values.candidates, values.objects, values.classes)
    logits = generator.normal(size=shape).astype(np.float32) + common.astype(np.float32)
    return log_softmax(2 * logits, axis=-1), labels
