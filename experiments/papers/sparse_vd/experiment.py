"""Runs one seed: trains, measures, prunes and exports a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.layers.sparse_vd import Parameterisation
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.weights.stored import StoredNetwork, check_fits
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.task import Objective, Task
from adaptive_nets.variational import compression, kl_divergence, layer_sparsity, linear_warmup
from experiments.papers.sparse_vd import measures
from experiments.papers.sparse_vd.configs.fields import (
    Config,
    SparseVDConfig,
    StartedSparseConfig,
    VariationalConfig,
    WideConfig,
    overrides,
)
from experiments.papers.sparse_vd.configs.parameterisation import EPOCHS
from experiments.papers.sparse_vd.gradient_noise import GradientNoise, draws_after_training
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite import run_inputs
from experiments.suite.config import training
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import RANDOM


def run(
    config: Config,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    if isinstance(config, StartedSparseConfig) and config.start.weights != RANDOM:
        stored = _dense_network(config, dataset, seed)
        task = dataclasses.replace(sparse_task(config, dataset), start=_start_from(stored))
    elif isinstance(config, SparseVDConfig):
        task = sparse_task(config, dataset)
    else:
        task = dense_task(config, dataset)
    result = train(
        task,
        training(config),
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    return _measured(config, task, result, dataset=dataset, directory=directory, seed=seed)


def run_forms(
    config: SparseVDConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures the gradient noise of both parameterisations as well.

    The noise is measured at every evaluation and, with more draws, after training.
    """
    assert dataset.train is not None
    values = config.train
    noise = GradientNoise(
        sparse_network(config, dataset, parameterisation="additive"),
        create_model(
            values.model.name.removesuffix(measures.VARIANT),
            num_classes=dataset.num_classes,
            dtype=jnp.dtype(values.model.dtype),
            **overrides(config),
        ),
        dataset.train,
        batch_size=values.data.batch_size,
        clip_noise=clips_noise(config.variational),
        label_smoothing=values.optimiser.label_smoothing,
    )
    task = dataclasses.replace(sparse_task(config, dataset), assess=noise.assess)
    result = train(
        task,
        values,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    outcome = _measured(config, task, result, dataset=dataset, directory=directory, seed=seed)
    draws = draws_after_training(result.timing.total_steps)
    metrics, arrays = noise.after_training(result.state.eval_variables, result.test, draws=draws)
    return dataclasses.replace(
        outcome, metrics={**outcome.metrics, **metrics}, arrays={**outcome.arrays, **arrays}
    )


def _measured(
    config: Config, task: Task, result: TrainResult, *, dataset: Dataset, directory: Path, seed: int
) -> Outcome:
    """Measures a trained network and exports it."""
    metrics = accuracy_metrics(result, train_images=result.train.size)
    arrays: dict[str, np.ndarray] = {}
    if isinstance(config, SparseVDConfig):
        network = measures.TrainedNetwork(
            config, result, task.model, dataset.num_classes, overrides(config)
        )
        metrics |= measures.sparsity_at_epochs(result, EPOCHS)
        metrics |= measures.sparsity_metrics(network)
        metrics |= measures.export_pruned(network, directory, note={"seed": seed})
        arrays |= measures.threshold_sweep(network)
        arrays |= measures.log_alpha_histogram(network)
    else:
        metrics["compression"] = Metric(1.0, "x", 1, "every weight is kept")
        metrics |= export_network(
            training(config),
            result,
            dataset.num_classes,
            directory,
            seed,
            overrides=overrides(config),
        )
    arrays |= measures.first_layer(result, config)
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def _dense_network(config: StartedSparseConfig, dataset: Dataset, seed: int) -> StoredNetwork:
    """Loads the dense network of ``--start.weights``.

    Raises:
        UserError: it cannot be read, or its network, width or classes are others.
    """
    where = config.start.weights
    found = run_inputs.resolve(
        where, run_inputs.RunInputField("required", random=True), flag="start.weights", seed=seed
    )
    dense = config.train.model.name.removesuffix(measures.VARIANT)
    stored = run_inputs.load_network(found, dense)
    expected = jax.eval_shape(
        lambda key: create_model(
            dense, num_classes=dataset.num_classes, **overrides(config)
        ).init(key, jnp.zeros((1, *model_entry(dense).input_shape))),
        jax.random.key(0),
    )  # fmt: skip
    check_fits(stored.variables, expected, source=f"--start.weights {where}")
    return stored


def _start_from(stored: StoredNetwork) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns a function that replaces all initial variables but those of the noise."""

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        dense = {name: tree for name, tree in stored.variables.items() if name != "params"}
        filled = _merged(params, stored.variables["params"])
        return filled, {**model_state, **jax.tree.map(jnp.asarray, dense)}

    return start


def _merged(initial: Any, given: Any) -> Any:
    """Returns the initial tree with the given leaves in place of its own."""
    if not isinstance(initial, Mapping):
        return jnp.asarray(given)
    return {
        name: _merged(child, given[name]) if name in given else child
        for name, child in initial.items()
    }


def dense_task(config: TrainConfig | WideConfig, dataset: Dataset) -> Task:
    """Builds the task of the plain network."""
    values = training(config)
    model = create_model(
        values.model.name, num_classes=dataset.num_classes, dtype=jnp.dtype(values.model.dtype),
        **overrides(config),
    )  # fmt: skip
    return classification_task(model, label_smoothing=values.optimiser.label_smoothing)


def clips_noise(variational: VariationalConfig) -> bool:
    """Returns whether the noise uses the clipped log α, as the multiplicative form always does."""
    return variational.clip_noise or variational.parameterisation == "multiplicative"


def sparse_network(
    config: SparseVDConfig, dataset: Dataset, *, parameterisation: Parameterisation | None = None
) -> nn.Module:
    """Builds the variational network, in another parameterisation than its own if one is given."""
    variational = config.variational
    return create_model(
        config.train.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.train.model.dtype),
        log_sigma2_init=variational.log_sigma2_init,
        threshold=variational.threshold,
        mask_in_training=variational.mask_in_training,
        clip_noise=clips_noise(variational),
        parameterisation=parameterisation or variational.parameterisation,
        **overrides(config),
    )


def sparse_task(config: SparseVDConfig, dataset: Dataset) -> Task:
    """Builds the task of the variational network: the bound, and sparsity at every evaluation."""
    variational, model = config.variational, sparse_network(config, dataset)

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
