"""Runs one seed of the training of the network to perforate."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
from flax.linen import initializers

from adaptive_nets.analysis import count_macs
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.models.nin import PUBLISHED_INIT
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.loop import train
from experiments.papers.perforated_cnn.configs import NinConfig
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
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
    values = config.train
    model = create_model(
        values.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(values.model.dtype),
        dropout_rate=config.network.dropout_rate,
        kernel_init=INITIALISERS[config.network.kernel_init],
        active_outputs=config.network.active_outputs,
    )
    task = classification_task(model, label_smoothing=values.optimiser.label_smoothing)
    result = train(
        task,
        values,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics = accuracy_metrics(result)
    shape = tuple(result.test.images.shape[1:])
    metrics["macs"] = Metric(count_macs(values.model.name, input_shape=shape) / 1e9, "10^9")
    metrics |= export_network(values, result, dataset.num_classes, directory, seed)
    return Outcome(metrics, {}, seconds=result.seconds, steps=result.timing.total_steps)
