"""Runs one seed of the training of the network that is perforated later."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
from flax.linen import initializers

from adaptive_nets.analysis import count_macs
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.models.nin import PUBLISHED_INIT
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.loop import train
from adaptive_nets.training.setup import Task
from adaptive_nets.training.step import classification
from experiments.papers.perforated_cnn.configs import NinConfig
from experiments.papers.sact.experiment import accuracy_metrics, export
from experiments.suite.experiment import Metric, Outcome

INITIALISERS = {"he": initializers.he_normal(), "published": PUBLISHED_INIT}


def run(
    config: NinConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    model = create_model(
        config.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.model.dtype),
        dropout_rate=config.network.dropout_rate,
        kernel_init=INITIALISERS[config.network.kernel_init],
    )
    task = Task(model, classification(label_smoothing=config.optimiser.label_smoothing))
    result = train(
        task,
        config,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics = accuracy_metrics(result)
    shape = tuple(result.test.images.shape[1:])
    metrics["macs"] = Metric(count_macs(config.model.name, input_shape=shape) / 1e9, "10^9")
    metrics |= export(config, result, dataset.num_classes, directory, seed)
    return Outcome(metrics, {}, seconds=result.seconds, steps=result.timing.total_steps)
