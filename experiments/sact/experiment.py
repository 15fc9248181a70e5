"""Runs one seed of an experiment of the paper: train, and measure accuracy and cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.analysis import count_macs
from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.models.weights import InputNormalisation, save_network
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.progress import ProgressReporter
from adaptive_nets.training.setup import Task
from adaptive_nets.training.step import classification
from experiments.experiment import Metric, Outcome


def run(
    config: TrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.experiment.Runner`."""
    task = plain_task(config, dataset)
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
    shape = result.test.images.shape[1:]
    macs = count_macs(config.model.name, input_shape=shape)
    metrics |= flops_metrics(np.array([2.0 * macs]), count=result.test.size)
    metrics |= export(config, result, dataset.num_classes, directory, seed)
    return Outcome(metrics, {}, seconds=result.seconds, steps=result.timing.total_steps)


def plain_task(config: TrainConfig, dataset: Dataset) -> Task:
    """A network without halting."""
    model = create_model(
        config.model.name, num_classes=dataset.num_classes, dtype=jnp.dtype(config.model.dtype)
    )
    return Task(model, classification(label_smoothing=config.optimiser.label_smoothing))


def accuracy_metrics(result: TrainResult) -> dict[str, Metric]:
    """Error, accuracy and loss on the test set, and on as many training images."""
    test = result.evaluate(result.state.eval_variables, result.test)
    fitted = result.evaluate(
        result.state.eval_variables, first_images(result.train, result.test.size)
    )
    count, seen = int(test["count"]), int(fitted["count"])
    return {
        "error": Metric(100 * test["error"], "%", count),
        "nll": Metric(test["nll"], "nats", count),
        "test_accuracy": Metric(100 - 100 * test["error"], "%", count),
        "train_accuracy": Metric(100 - 100 * fitted["error"], "%", seen, "the first ones"),
        "train_nll": Metric(fitted["nll"], "nats", seen, "the first ones"),
    }


def first_images(data: DeviceSplit, count: int) -> DeviceSplit:
    """The first so many images of a split, in stored order."""
    return dataclasses.replace(data, images=data.images[:count], labels=data.labels[:count])


def flops_metrics(flops: np.ndarray, *, count: int | None = None) -> dict[str, Metric]:
    """Mean and standard deviation over images of FLOPs = 2·MACs.

    Args:
        flops: float or int [N], one per image.
        count: number of images, where it is not N.
    """
    count = flops.size if count is None else count
    return {
        "flops": Metric(float(np.mean(flops)), "FLOPs", count, "per image"),
        "flops_std": Metric(float(np.std(flops)), "FLOPs", count, "over images"),
    }


def export(
    config: TrainConfig, result: TrainResult, num_classes: int, directory: Path, seed: int
) -> dict[str, Metric]:
    """Writes the network to network.safetensors."""
    variables: Any = jax.device_get(result.state.eval_variables)
    data = result.test
    offset, scale, pixel_scale = jax.device_get((data.offset, data.scale, data.pixel_scale))
    size = save_network(
        directory / "network.safetensors",
        model=config.model.name,
        num_classes=num_classes,
        variables=variables,
        normalisation=InputNormalisation(float(pixel_scale), offset, scale, data.per_image),
        note={"seed": seed},
    )
    return {"file_size": Metric(float(size), "bytes")}
