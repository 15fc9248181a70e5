"""Runs one seed of ACT or SACT: trains the network and measures accuracy, cost and halting."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.depth import adaptive_depth
from adaptive_nets.training.loop import train
from adaptive_nets.training.shifted_depth import unwrapped, with_random_shifts
from adaptive_nets.training.task import Task
from experiments.shared.adaptive_depth.configs import (
    ScoresConfig,
    ScoresTrainConfig,
)
from experiments.shared.adaptive_depth.images import images_of
from experiments.shared.adaptive_depth.measures import (
    counter,
    measure_usage,
    use_arrays,
    use_metrics,
)
from experiments.shared.adaptive_depth.recipes import measures_top5
from experiments.shared.adaptive_depth.warm_start import (
    tau_schedule,
    warm_start_fn,
    with_plain_images,
)
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.experiment import Outcome


def run(
    config: ScoresTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    values = with_plain_images(config.train, config.halting.start_from, seed=seed)
    config = dataclasses.replace(config, train=values)
    task = scores_task(config, dataset, seed=seed)
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
    images = images_of(result.test, values)
    network = unwrapped(task.model)
    use = measure_usage(
        network,
        result.state.eval_variables,
        images,
        flops=counter(network, images),
        batch_size=values.data.eval_batch_size,
    )
    metrics |= use_metrics(use)
    metrics |= export_network(
        values,
        result,
        dataset.num_classes,
        directory,
        seed,
        overrides=model_overrides(config.halting),
    )
    return Outcome(
        metrics, use_arrays(use), seconds=result.seconds, steps=result.timing.total_steps
    )


def scores_task(config: ScoresTrainConfig, dataset: Dataset, *, seed: int) -> Task:
    """Builds the task of a network that halts by sums of scores, with its ponder cost."""
    halting = config.halting
    model: Any = create_model(
        config.train.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.train.model.dtype),
        **model_overrides(halting),
    )
    smoothing = config.train.optimiser.label_smoothing
    return classification_task(
        with_random_shifts(model, halting.shifts, halting.tau_growth),
        lambda timing: adaptive_depth(tau_schedule(halting, timing), label_smoothing=smoothing),
        start=warm_start_fn(halting, config.train.model.name, seed=seed),
        top5=measures_top5(config.train),
    )


def model_overrides(halting: ScoresConfig) -> dict[str, Any]:
    """Returns the options of the model that its configuration decides."""
    return {"head_norm": halting.head_norm, "eps": halting.eps}
