"""Runs one seed of an experiment of the paper: train, and measure accuracy and cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.analysis import count_macs
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.models.weights.stored import InputNormalisation, save_network
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.depth import adaptive_depth
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.task import Task
from experiments.shared.adaptive_depth.configs import ScoresConfig, ScoresTrainConfig
from experiments.shared.adaptive_depth.measures import (
    counter,
    flops_metrics,
    measure_usage,
    use_arrays,
    use_metrics,
)
from experiments.shared.adaptive_depth.warm_start import tau_schedule, warm_start_fn
from experiments.suite.config import training
from experiments.suite.experiment import Metric, Outcome


def run(
    config: TrainConfig | ScoresTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    adaptive = isinstance(config, ScoresTrainConfig)
    task = scores_task(config, dataset) if adaptive else plain_task(config, dataset)
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
    metrics = accuracy_metrics(result)
    arrays: dict[str, np.ndarray] = {}
    if adaptive:
        use = measure_usage(
            task.model,
            result.state.eval_variables,
            result.test,
            flops=counter(task.model, result.test),
            batch_size=values.data.eval_batch_size,
        )
        metrics |= use_metrics(use)
        arrays = use_arrays(use)
    else:
        macs = count_macs(task.model, input_shape=result.test.images.shape[1:])
        metrics |= flops_metrics(np.array([2.0 * macs]), count=result.test.size)
    metrics |= export(
        values,
        result,
        dataset.num_classes,
        directory,
        seed,
        overrides=model_overrides(config.halting)
        if isinstance(config, ScoresTrainConfig)
        else None,
    )
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def plain_task(config: TrainConfig, dataset: Dataset) -> Task:
    """A network without halting."""
    model = create_model(
        config.model.name, num_classes=dataset.num_classes, dtype=jnp.dtype(config.model.dtype)
    )
    return classification_task(model, label_smoothing=config.optimiser.label_smoothing)


def scores_task(config: ScoresTrainConfig, dataset: Dataset) -> Task:
    """A network that halts by sums of scores, and the price of its ponder cost."""
    halting = config.halting
    model = create_model(
        config.train.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.train.model.dtype),
        **model_overrides(halting),
    )
    smoothing = config.train.optimiser.label_smoothing
    return classification_task(
        model,
        lambda timing: adaptive_depth(tau_schedule(halting, timing), label_smoothing=smoothing),
        start=warm_start_fn(halting),
    )


def model_overrides(halting: ScoresConfig) -> dict[str, Any]:
    """Returns the options of the model that its configuration decides."""
    return {"head_norm": halting.head_norm, "eps": halting.eps}


def accuracy_metrics(result: TrainResult) -> dict[str, Metric]:
    """Error, accuracy and loss on the test set, and on as many training images."""
    test = result.evaluate(result.state.eval_variables, result.test)
    fitted = result.evaluate(result.state.eval_variables, result.train.first(result.test.size))
    count, seen = int(test["count"]), int(fitted["count"])
    return {
        "error": Metric(100 * test["error"], "%", count),
        "nll": Metric(test["nll"], "nats", count),
        "test_accuracy": Metric(100 - 100 * test["error"], "%", count),
        "train_accuracy": Metric(100 - 100 * fitted["error"], "%", seen, "the first ones"),
        "train_nll": Metric(fitted["nll"], "nats", seen, "the first ones"),
    }


def export(
    config: TrainConfig,
    result: TrainResult,
    num_classes: int,
    directory: Path,
    seed: int,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Metric]:
    """Writes the network to network.safetensors.

    Args:
        config: it was trained with.
        result: of the training.
        num_classes: number of its outputs.
        directory: where to.
        seed: of the run.
        overrides: what the model was made with.
    """
    variables: Any = jax.device_get(result.state.eval_variables)
    data = result.test
    offset, scale, pixel_scale = jax.device_get((data.offset, data.scale, data.pixel_scale))
    size = save_network(
        directory / "network.safetensors",
        model=config.model.name,
        num_classes=num_classes,
        variables=variables,
        normalisation=InputNormalisation(float(pixel_scale), offset, scale, data.per_image),
        note={"seed": seed, "data": config.data.name, "overrides": dict(overrides or {})},
    )
    return {"file_size": Metric(float(size), "bytes")}
