"""Runs one seed: trains a network whose convolutions start from given kernels, frozen or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import require
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.task import Task
from experiments.papers.dwp import image_vae, measures
from experiments.papers.dwp.fields import KernelsRunConfig
from experiments.papers.dwp.networks import build, export, kernel_sizes, start_from
from experiments.papers.dwp.prior_files import resolve_priors
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.experiment import Metric, Outcome

STEPS = tuple(range(25, 1001, 25))
"""Steps at which a record of convergence may have a measure of its own."""


class FrozenConvolutions:
    """Network whose convolutions get no gradient, with the `init` and `apply` of a module.

    Args:
        module: plain network, whose convolutions are the layers named conv1, conv2 …
    """

    def __init__(self, module: Any):
        self.module = module

    def init(self, rngs: Any, x: Array, **options: Any) -> Any:
        """Initialises the plain network."""
        return self.module.init(rngs, x, **options)

    def apply(self, variables: Any, x: Array, **options: Any) -> Any:
        """Applies the plain network."""
        params = {
            name: jax.lax.stop_gradient(tree) if name.startswith("conv") else tree
            for name, tree in variables["params"].items()
        }
        return self.module.apply({**variables, "params": params}, x, **options)


def run_features(config: KernelsRunConfig, **arguments: Any) -> Outcome:
    """Trains the classifier on the features of frozen kernels."""
    return _run(config, frozen=True, **arguments)


def run_convergence(config: KernelsRunConfig, **arguments: Any) -> Outcome:
    """Trains all weights, and records the accuracy over the first steps."""
    return _run(config, frozen=False, **arguments)


def _run(
    config: KernelsRunConfig, *, frozen: bool, dataset: Dataset, directory: Path, seed: int,
    progress: ProgressReporter, title: str,
) -> Outcome:  # fmt: skip
    module = build(config.train, config.network, dataset)
    task = classification_task(FrozenConvolutions(module) if frozen else module)
    result = _trained(config, task, module, dataset, directory, seed, progress, title)
    metrics = accuracy_metrics(result)
    metrics["accuracy"] = metrics.pop("test_accuracy")
    curve = measures.curves(result.metrics_file, "test/error")
    curve["value"] = 100 - 100 * curve["value"]
    if not frozen:
        metrics |= measures.at_steps(
            curve, "accuracy", STEPS, unit="%", count=metrics["accuracy"].count
        )
    metrics |= export(
        config.train, config.network, result, dataset, directory, seed,
        params=result.state.params,
    )  # fmt: skip
    return Outcome(metrics, curve, seconds=result.seconds, steps=result.timing.total_steps)


def run_vae(
    config: KernelsRunConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains a variational autoencoder of images, and records its bound over the first steps."""
    widths = config.network.widths or image_vae.WIDTHS
    require(len(widths) == 2, "network.widths", widths, "two numbers, of 7x7 and of 5x5 kernels")
    module = image_vae.ImageVAE(widths)
    task = image_vae.task(module)
    result = _trained(config, task, module, dataset, directory, seed, progress, title)
    curve = measures.curves(result.metrics_file, "test/bound")
    count = len(dataset.test) if dataset.test is not None else 0
    metrics = measures.at_steps(curve, "bound", (*STEPS, 990), unit="nats", count=count)
    metrics["bound"] = Metric(float(curve["value"][-1]), "nats", count, "last evaluation")
    return Outcome(metrics, curve, seconds=result.seconds, steps=result.timing.total_steps)


def _trained(
    config: KernelsRunConfig, task: Task, module: Any, dataset: Dataset, directory: Path,
    seed: int, progress: ProgressReporter, title: str,
) -> TrainResult:  # fmt: skip
    """Trains a network from the kernels of the configuration."""
    kernels, start = config.kernels, None
    if kernels.init != "xavier":
        priors = resolve_priors(
            kernels.source, kernel_sizes(module, dataset), flag="kernels.source", seed=seed
        )
        start = start_from(
            {size: p.initializer(kernels.init, kernels.draw) for size, p in priors.items()},
            seed=seed,
        )
    return train(
        dataclasses.replace(task, start=start), config.train, dataset=dataset,
        directory=directory, seed=seed, progress=progress, title=title,
    )  # fmt: skip
