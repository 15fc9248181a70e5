"""Stages shared by the paper's experiments: impacts, errors, fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import Dataset
from adaptive_nets.perforation import PerforationPlan, average_impact
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.evaluation import make_evaluate
from adaptive_nets.training.loop import TrainResult, train
from experiments.papers.perforated_cnn.experiments.source import Source

Values = Mapping[str, float]


def impacts_fn(
    source: Source, *, count: int, batch_size: int, seed: int
) -> Callable[[PerforationPlan, Callable[[], None]], dict[str, np.ndarray]]:
    """Builds (plan, tick) -> average impacts over a fixed random subset of the training set."""
    images, labels = source.training_images(count, seed=seed)

    def impacts(plan: PerforationPlan, tick: Callable[[], None]) -> dict[str, np.ndarray]:
        return average_impact(
            source.model,
            source.variables,
            jnp.asarray(images),
            jnp.asarray(labels),
            plan=plan,
            batch_size=batch_size,
            progress=lambda done, total: tick(),
        )

    return impacts


def cached_json(path: Path, name: str, make: Callable[[], Values]) -> dict[str, float]:
    """Returns values from the run's JSON file, or measures and stores them.

    Args:
        path: JSON file of the run.
        name: Name of the values.
        make: Measures the values.
    """
    known = read_json_object(path, remedy="delete it to measure again") if path.exists() else {}
    if name not in known:
        known[name] = dict(make())
        write_json_atomically(path, known)
    return known[name]


def evaluate_split(
    network: Any, variables: Any, data: DeviceSplit, *, batch_size: int
) -> dict[str, float]:
    """Returns {"error": fraction, "nll": nats, "count": images} on a whole split."""
    evaluate = make_evaluate(classification_task(network), batch_size=min(batch_size, data.size))
    return evaluate(variables, data)


def tune(
    network: Any,
    variables: Any,
    config: TrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> TrainResult:
    """Fine-tunes a network from given weights; its masks are fixed.

    Args:
        network: Object with the `init` and `apply` of a linen module.
        variables: Initial variables.
        config: Configuration of the training.
        dataset: Data to train and test on.
        directory: Folder of this training alone.
        seed: Seed of the order of the data and of dropout.
        progress: Reporter of the progress.
        title: Title of the progress.
    """
    state = {name: value for name, value in variables.items() if name != "params"}

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        del params, model_state
        return jax.tree.map(jnp.asarray, (variables["params"], state))

    directory.mkdir(parents=True, exist_ok=True)
    smoothing = config.optimiser.label_smoothing
    return train(
        classification_task(network, label_smoothing=smoothing, start=start),
        config,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )


def tune_and_test(
    network: Any,
    variables: Any,
    config: TrainConfig,
    *,
    cache: Path,
    name: str,
    directory: Path,
    **options: Any,
) -> dict[str, float]:
    """Fine-tunes a network and returns its test values, without training again once they are known.

    Args:
        network: Object with the `init` and `apply` of a linen module.
        variables: Initial variables.
        config: Configuration of the training.
        cache: JSON file of the run, see `cached_json`.
        name: Name of the network in that file.
        directory: Folder of this training alone.
        **options: Further arguments of `tune`.

    Returns:
        {"error": fraction, "nll": nats, "count": images, "seconds", "steps"}.
    """

    def make() -> dict[str, float]:
        result = tune(network, variables, config, directory=directory, **options)
        lines = result.metrics_file.read_text(encoding="utf-8").splitlines()
        last = [row for row in map(json.loads, lines) if "test/error" in row][-1]
        return {
            "error": last["test/error"],
            "nll": last["test/nll"],
            "count": result.test.size,
            "seconds": result.seconds,
            "steps": result.timing.total_steps,
        }

    return cached_json(cache, name, make)
