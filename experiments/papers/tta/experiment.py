"""Runs one seed: predictions of trained networks averaged over random crops and flips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.ensembling import average_views, crop_views, unchanged_views
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.tta.configs import PairConfig, SingleConfig
from experiments.papers.tta.measures import throughput
from experiments.shared.ensembling.network import (
    TrainedNetwork,
    evaluation_split,
    load_trained,
)
from experiments.shared.ensembling.scores import CLL, Scores, score, score_arrays
from experiments.suite.experiment import Metric, Outcome


def run(
    config: SingleConfig | PairConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures predictions over numbers of views; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    networks = _networks(config, dataset, seed)
    split = evaluation_split(dataset)
    labels, batch_size = split.labels, config.data.eval_batch_size
    predictors = [network.predictor() for network in networks]
    identity = {
        "networks": [network.digest for network in networks],
        "images": dataset.fingerprint,
        "count": len(split),
        "padding": config.views.padding,
    }
    plain_log_probs = average_views(
        predictors, split.images, unchanged_views, counts=(len(predictors),),
        batch_size=batch_size, progress=progress, title=f"{title}: images as they are",
    )[len(predictors)]  # fmt: skip
    plain = score(plain_log_probs, labels, config.calibration, seed=seed)
    progress.show(f"{title}: {_described(plain)} without augmentation")
    views = crop_views(config.views.padding)
    averages = average_views(
        predictors, split.images, views, counts=config.views.counts, seed=seed,
        batch_size=batch_size, store=directory / "views.npz", identity=identity,
        progress=progress, title=title,
    )  # fmt: skip
    scores = {}
    for count, log_probs in averages.items():
        scores[count] = score(log_probs, labels, config.calibration, seed=seed)
        progress.show(f"{title}: {_described(scores[count])} with {count} views")
    metrics = {f"plain_{name}": metric for name, metric in plain.metrics().items()}
    for count, found in scores.items():
        metrics |= found.metrics(f".{count}", f"{count} views")
    if config.speed.seconds:
        metrics |= throughput(
            predictors[0], split.images[:batch_size], views, seconds=config.speed.seconds
        )
    best = max(scores, key=lambda count: scores[count].values[CLL])
    metrics["gain"] = Metric(
        scores[best].values[CLL] - plain.values[CLL], "nats", len(split),
        f"calibrated log-likelihood, {best} views less none",
    )  # fmt: skip
    arrays: dict[str, np.ndarray] = {
        **score_arrays(scores),
        **{f"plain/{name}": np.array(value) for name, value in plain.values.items()},
    }
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=0)


def _networks(
    config: SingleConfig | PairConfig, dataset: Dataset, seed: int
) -> list[TrainedNetwork]:
    networks = [load_trained(config.weights, config.model.name, dataset, seed=seed)]
    if isinstance(config, PairConfig):
        networks.append(
            load_trained(
                config.second.weights, config.second.name, dataset, seed=seed + 1,
                flag="second.weights",
            )
        )  # fmt: skip
    return networks


def _described(scores: Scores) -> str:
    values = scores.values
    return f"{values['error']:.2f} % error, calibrated log-likelihood {values[CLL]:.4f}"
