"""Runs one seed of an experiment of the paper."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.config import TrainConfig
from experiments.suite.experiment import Outcome
from toy_paper.configs import PrunedConfig
from toy_paper.measures import pruning_metrics


def prune(
    config: PrunedConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Keeps the largest weights of a random matrix."""
    started = time.perf_counter()
    weights = np.abs(np.random.default_rng(seed).normal(size=(20, 20)))
    kept = weights >= np.quantile(weights, 1 - config.pruning.keep)
    arrays = {"kept": kept.sum(axis=0).astype(np.int32)}
    return Outcome(pruning_metrics(kept), arrays, seconds=time.perf_counter() - started, steps=0)


def train_small(
    config: TrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains a small network."""
    import jax.numpy as jnp

    from adaptive_nets.models import create_model
    from adaptive_nets.training.classification import classification_task
    from adaptive_nets.training.loop import train
    from experiments.shared.export import export_network
    from experiments.shared.metrics import accuracy_metrics

    dtype = jnp.dtype(config.model.dtype)
    model = create_model(config.model.name, num_classes=dataset.num_classes, dtype=dtype)
    result = train(
        classification_task(model),
        config,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics = accuracy_metrics(result)
    metrics |= export_network(config, result, dataset.num_classes, directory, seed)
    return Outcome(metrics, {}, seconds=result.seconds, steps=result.timing.total_steps)
