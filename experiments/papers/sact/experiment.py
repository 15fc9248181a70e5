"""Runs one seed: trains a plain or an adaptive network, and measures accuracy and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.loop import train
from adaptive_nets.training.task import Task
from experiments.papers.sact.fields import EqualFlopsTrainConfig, PretrainedScoresTrainConfig
from experiments.papers.sact.measures import plain_costs, stage_metrics
from experiments.shared.adaptive_depth import scores
from experiments.shared.adaptive_depth.configs import ScoresTrainConfig
from experiments.shared.adaptive_depth.equal_flops import units_of_run
from experiments.shared.adaptive_depth.images import image_size, images_of
from experiments.shared.adaptive_depth.recipes import measures_top5
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.config import training
from experiments.suite.experiment import Outcome

PLAIN_IMAGENET = "sact.baseline.imagenet-resnet101"


def run(
    config: TrainConfig | EqualFlopsTrainConfig | ScoresTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    options: dict[str, Any] = {
        "dataset": dataset,
        "directory": directory,
        "seed": seed,
        "progress": progress,
        "title": title,
    }
    if isinstance(config, PretrainedScoresTrainConfig) and not config.halting.start_from:
        raise UserError(
            "--halting.start-from is ''; expected the folder of a finished run of the plain "
            f"network ({PLAIN_IMAGENET}), a weights file, or 'random' to try the command"
        )
    if isinstance(config, ScoresTrainConfig):
        return scores.run(config, **options)
    values = training(config)
    overrides: dict[str, Any] = {}
    if isinstance(config, EqualFlopsTrainConfig):
        sizes = stage_sizes(config, seed=seed)
        overrides = {"stage_sizes": sizes}
        try:
            create_model(values.model.name, **overrides)
        except UserError as error:
            name = "like" if config.baseline.like else "units"
            raise UserError(f"--baseline.{name} gives {sizes} units per block: {error}") from error
    task = plain_task(values, dataset, overrides)
    result = train(task, values, **options)
    metrics = accuracy_metrics(result) | stage_metrics(overrides.get("stage_sizes", ()))
    size = image_size(images_of(result.test, values))
    metrics |= plain_costs(task.model, size, count=result.test.size)
    metrics |= export_network(
        values, result, dataset.num_classes, directory, seed, overrides=overrides
    )
    return Outcome(metrics, {}, seconds=result.seconds, steps=result.timing.total_steps)


def plain_task(config: TrainConfig, dataset: Dataset, overrides: dict[str, Any]) -> Task:
    """Builds the task of a network without halting."""
    model = create_model(
        config.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.model.dtype),
        **overrides,
    )
    return classification_task(
        model, label_smoothing=config.optimiser.label_smoothing, top5=measures_top5(config)
    )


def stage_sizes(config: EqualFlopsTrainConfig, *, seed: int) -> tuple[int, ...]:
    """Returns the number of units per block: of the run that is named, or as given.

    Raises:
        UserError: neither is given, or the run cannot be used.
    """
    baseline = config.baseline
    if baseline.like:
        return units_of_run(baseline.like, flag="baseline.like", seed=seed)
    if not baseline.units:
        raise UserError(
            "--baseline.like is ''; expected the folder of a finished run of the network of "
            "adaptive depth, or units per block in --baseline.units"
        )
    return baseline.units
