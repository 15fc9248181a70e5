"""Runs one seed: trains a recurrent network and measures its updates by difficulty."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.sequences import difficulty
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model, full_output
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.depth import adaptive_depth
from adaptive_nets.training.loop import train
from experiments.papers.pact.measures import difficulty_metrics
from experiments.shared.adaptive_depth.configs import LatentTrainConfig, ScoresTrainConfig
from experiments.shared.adaptive_depth.warm_start import tau_schedule, warm_start_fn
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.experiment import Outcome


def run(
    config: ScoresTrainConfig | LatentTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    overrides: dict[str, Any] = (
        {"eps": config.halting.eps}
        if isinstance(config, ScoresTrainConfig)
        else {"temperature": config.halting.temperature}
    )
    name = config.train.model.name
    model = create_model(name, num_classes=dataset.num_classes, **overrides)
    task = classification_task(
        model,
        lambda timing: adaptive_depth(tau_schedule(config.halting, timing)),
        start=warm_start_fn(config.halting, config.train.model.name, seed=seed),
    )
    result = train(
        task,
        config.train,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics = accuracy_metrics(result)
    assert dataset.test is not None
    images = dataset.test.images
    output = jax.jit(functools.partial(full_output, model))(
        result.state.eval_variables, jnp.asarray(images, jnp.float32)
    )
    units, costs = (
        np.stack([np.asarray(x).reshape(len(images)) for x in parts], axis=1)
        for parts in (
            [block.num_units for block in output.blocks],
            [block.ponder_cost for block in output.blocks],
        )
    )
    numbers = difficulty(images)
    metrics |= difficulty_metrics(numbers, units, costs)
    metrics |= export_network(
        config.train, result, dataset.num_classes, directory, seed, overrides=overrides
    )
    arrays = {"difficulty": numbers, "units": units, "ponder": costs.astype(np.float32)}
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)
