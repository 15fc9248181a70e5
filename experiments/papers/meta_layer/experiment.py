"""Runs one seed: trains one network of the study and measures it after every epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from adaptive_nets.analysis import count_macs, count_params
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.distributed import is_process_0
from adaptive_nets.training.loop import TrainResult, train
from experiments.papers.meta_layer import measures
from experiments.papers.meta_layer.fields import LOW_RANK, StudyConfig
from experiments.papers.meta_layer.low_rank import LowRankNet, merged
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.config import flag
from experiments.suite.experiment import Metric, Outcome

# Factors multiply to a plain dense layer, so the trained network is of this name.
_FACTORISED = "meta_study_conv2d_"


def run(
    config: StudyConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    dataset = measures.with_batch_shares(dataset)
    assert dataset.test is not None
    # Counted first: an impossible network ends the run before it starts.
    metrics = size_metrics(config, dataset.num_classes, dataset.test.images.shape[1:])
    values = config.train
    task = classification_task(
        build_network(config, dataset.num_classes),
        label_smoothing=values.optimiser.label_smoothing,
    )
    result = train(
        dataclasses.replace(task, measures=measures.batch_mean_measures),
        values,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    metrics |= accuracy_metrics(result)
    # Only process 0 has the logged values, and only its record is kept.
    arrays = measures.curves(result.metrics_file) if is_process_0() else {}
    if arrays:
        metrics |= measures.curve_metrics(arrays, images=len(dataset.test))
    metrics |= _export(config, result, dataset.num_classes, directory, seed)
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def build_network(config: StudyConfig, num_classes: int) -> nn.Module:
    """Builds the network of a configuration.

    Raises:
        UserError: the network does not have one of the changed options.
    """
    name, network = config.train.model.name, config.network
    dtype = jnp.dtype(config.train.model.dtype)
    if network.head != LOW_RANK:
        return create_model(name, num_classes=num_classes, dtype=dtype, **network.changes())
    if not name.startswith(_FACTORISED):
        raise UserError(
            f"--model.name is {name!r}; expected {_FACTORISED}1, {_FACTORISED}2 or "
            f"{_FACTORISED}3 with --network.head low_rank"
        )
    others = set(network.changes()) - {"head", "rank"}
    if others:
        first = min(others)
        raise UserError(
            f"{flag(f'network.{first}')} is {getattr(network, first)!r}; expected the default, "
            "since --network.head is low_rank"
        )
    test = int(name.removeprefix(_FACTORISED))
    return LowRankNet(test, network.rank, num_classes=num_classes, dtype=dtype)


def size_metrics(
    config: StudyConfig, num_classes: int, image_shape: tuple[int, ...]
) -> dict[str, Metric]:
    """Counts parameters, and multiply-accumulates of one image.

    Raises:
        UserError: no network has these options; the message names their flags.
    """
    try:
        model = build_network(config, num_classes)
        parameters = count_params(model, input_shape=image_shape)
        macs = count_macs(model, input_shape=image_shape)
    except UserError as error:
        raise UserError(_with_flags(config.network.changes(), str(error))) from error
    return {
        "parameters": Metric(float(parameters), "parameters"),
        "macs": Metric(float(macs), "MACs"),
    }


def _with_flags(changes: Mapping[str, Any], message: str) -> str:
    """Adds the flags that may be wrong to the message of a network, which knows none."""
    if not changes or message.startswith("--"):
        return message
    given = " ".join(f"{flag(f'network.{name}')} {value}" for name, value in changes.items())
    return f"{given}: {message}"


def _export(
    config: StudyConfig, result: TrainResult, num_classes: int, directory: Path, seed: int
) -> dict[str, Metric]:
    """Writes the trained network, a factorised one with its factors multiplied."""
    overrides = config.network.changes()
    if config.network.head == LOW_RANK:
        state, overrides = result.state, {}
        variables = merged(state.eval_variables)
        state = dataclasses.replace(
            state,
            params=variables["params"],
            model_state={k: v for k, v in variables.items() if k != "params"},
            ema={},
        )
        result = dataclasses.replace(result, state=state)
    return export_network(config.train, result, num_classes, directory, seed, overrides=overrides)
