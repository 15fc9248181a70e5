"""Runs one seed: trains, measures, prunes and exports a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.loop import train
from adaptive_nets.training.task import Objective, Task
from adaptive_nets.variational import compression, kl_divergence, layer_sparsity, linear_warmup
from experiments.papers.sparse_vd import measures
from experiments.papers.sparse_vd.configs import SparseVDConfig
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.config import training
from experiments.suite.experiment import Metric, Outcome


def run(
    config: TrainConfig | SparseVDConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    sparse = isinstance(config, SparseVDConfig)
    task = sparse_task(config, dataset) if sparse else dense_task(config, dataset)
    values = training(config)
    result = train(
        task,
        values,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics = accuracy_metrics(result, train_images=result.train.size)
    arrays: dict[str, np.ndarray] = {}
    if sparse:
        network = measures.TrainedNetwork(config, result, task.model, dataset.num_classes)
        metrics |= measures.sparsity_metrics(network)
        metrics |= measures.export_pruned(network, directory, note={"seed": seed})
        arrays |= measures.threshold_sweep(network)
        arrays |= measures.log_alpha_histogram(network)
    else:
        metrics["compression"] = Metric(1.0, "x", 1, "every weight is kept")
        metrics |= export_network(values, result, dataset.num_classes, directory, seed)
    arrays |= measures.first_layer(result, config)
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def dense_task(config: TrainConfig, dataset: Dataset) -> Task:
    """Builds the task of the plain network."""
    model = create_model(
        config.model.name, num_classes=dataset.num_classes, dtype=jnp.dtype(config.model.dtype)
    )
    return classification_task(model, label_smoothing=config.optimiser.label_smoothing)


def sparse_task(config: SparseVDConfig, dataset: Dataset) -> Task:
    """Builds the task of the variational network: the bound, and sparsity at every evaluation."""
    variational = config.variational
    model = create_model(
        config.train.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.train.model.dtype),
        log_sigma2_init=variational.log_sigma2_init,
        threshold=variational.threshold,
        mask_in_training=variational.mask_in_training,
        clip_noise=variational.clip_noise,
    )

    def bound(timing: Timing) -> Objective:
        variational.check_times(timing)
        start, end = timing.steps(variational.kl_start), timing.steps(variational.kl_full)

        def penalty(params: Any, step: Any) -> dict[str, Any]:
            # The bound is a sum over the training set; the loss is its mean, so the divergence is
            # divided as well.
            weight = variational.kl_weight * linear_warmup(step, start=start, end=end)
            return {"kl": weight * kl_divergence(params) / timing.examples}

        smoothing = config.train.optimiser.label_smoothing
        return classification(label_smoothing=smoothing, penalty=penalty)

    def describe(params: Any) -> dict[str, float]:
        layers = layer_sparsity(params, threshold=variational.threshold)
        kept = sum(layer.kept for layer in layers)
        return {
            **{f"sparsity/{layer.layer}": layer.sparsity for layer in layers},
            "sparsity": 1 - kept / sum(layer.weights for layer in layers),
            "compression": compression(layers),
        }

    return classification_task(model, bound, describe=describe)
