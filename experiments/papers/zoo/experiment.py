"""Runs one seed of a network of images: trains, measures and exports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.loop import TrainResult, train
from experiments.papers.zoo import measures
from experiments.papers.zoo.fields import FractalTrainConfig, ImageConfig
from experiments.papers.zoo.networks import image_task, is_of_zoo, overrides_of
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.config import training
from experiments.suite.experiment import Metric, Outcome


def run(
    config: ImageConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    values = training(config)
    result = train(
        image_task(config, dataset.num_classes),
        values,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics = accuracy_metrics(result) | measures.parameter_metric(result.state.params)
    if "top5" in metrics:
        top5 = metrics["top5"]
        assert top5.value is not None
        metrics["top5_error"] = Metric(100 - top5.value, "%", top5.count)
    if values.model.name.startswith("hypernet_mnist"):
        metrics |= measures.kernel_metric(result.state.params)
    if isinstance(config, FractalTrainConfig):
        metrics |= _columns(config, result, dataset.num_classes)
    if is_of_zoo(config):
        metrics |= export_network(
            values, result, dataset.num_classes, directory, seed, overrides=overrides_of(config)
        )
    arrays: dict[str, np.ndarray] = {}
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def _columns(
    config: FractalTrainConfig, result: TrainResult, num_classes: int
) -> dict[str, Metric]:
    options: dict[str, Any] = {**config.network.overrides(), "num_classes": num_classes}
    return measures.column_errors(
        config.train.model.name,
        options,
        result.state.eval_variables,
        result.test,
        batch_size=config.train.data.eval_batch_size,
    )
