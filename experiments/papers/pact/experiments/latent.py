"""Runs one seed: trains a network with latent depth and measures it in three modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import Dataset
from adaptive_nets.halting import count_latents
from adaptive_nets.models import create_model
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import require
from adaptive_nets.training.depth import (
    SampledDepth,
    adaptive_depth,
    sampled_depth,
    update_reward_baseline,
)
from adaptive_nets.training.loop import train
from adaptive_nets.training.shifted_depth import unwrapped, with_random_shifts
from adaptive_nets.training.task import Task
from experiments.papers.pact.fields import PretrainedLatentTrainConfig
from experiments.papers.pact.measures import measure_all_modes, mode_metrics
from experiments.shared.adaptive_depth.configs import LatentConfig, LatentTrainConfig
from experiments.shared.adaptive_depth.measures import use_arrays, use_metrics
from experiments.shared.adaptive_depth.warm_start import (
    tau_schedule,
    warm_start_fn,
    with_plain_images,
)
from experiments.shared.export import export_network
from experiments.shared.metrics import accuracy_metrics
from experiments.suite.experiment import Metric, Outcome

# Number of test images on which the three modes are compared during training.
_WATCHED = 1000
# Number of blocks of a CIFAR network.
_BLOCKS = 3


def run(
    config: LatentTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    if isinstance(config, PretrainedLatentTrainConfig) and not config.halting.start_from:
        raise UserError(
            "--halting.start-from is ''; expected the folder of a finished run of the plain "
            "network, a weights file, or 'random' to try the command"
        )
    values = with_plain_images(config.train, config.halting.start_from, seed=seed)
    config = dataclasses.replace(config, train=values)
    task = latent_task(config, dataset, seed=seed)
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
    uses = measure_all_modes(
        unwrapped(task.model),
        result.state.eval_variables,
        result.test,
        batch_size=config.train.data.eval_batch_size,
        seed=seed,
    )
    metrics |= use_metrics(uses["thresholded"]) | mode_metrics(uses)
    side = result.test.images.shape[1]
    latents = count_latents(_maps(side), config.halting.groups or side)
    metrics["latents"] = Metric(float(latents), "variables", 1, "per image")
    metrics |= export_network(
        config.train,
        result,
        dataset.num_classes,
        directory,
        seed,
        overrides=model_overrides(config.halting),
    )
    arrays = use_arrays(uses["thresholded"])
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def latent_task(config: LatentTrainConfig, dataset: Dataset, *, seed: int) -> Task:
    """Builds the task of a network with latent depth, relaxed or sampled, with its penalty."""
    halting = config.halting
    network = make_network(config, dataset)
    smoothing = {"label_smoothing": config.train.optimiser.label_smoothing}
    common: dict[str, Any] = {
        "start": warm_start_fn(halting, config.train.model.name, seed=seed),
        "assess": _watch(network, config.train.data.eval_batch_size, seed),
    }
    if halting.estimator == "relaxation":
        return classification_task(
            with_random_shifts(network, halting.shifts, halting.tau_growth),
            lambda timing: adaptive_depth(tau_schedule(halting, timing), **smoothing),
            **common,
        )
    return classification_task(
        SampledDepth(network, num_steps=sum(size - 1 for size in network.stage_sizes)),
        lambda timing: sampled_depth(tau_schedule(halting, timing), **smoothing),
        after=lambda timing: update_reward_baseline(
            tau_schedule(halting, timing), decay=halting.baseline_decay, **smoothing
        ),
        **common,
    )


def make_network(config: LatentTrainConfig, dataset: Dataset) -> AdaptiveResidualNetwork:
    """Builds the network of a configuration.

    Raises:
        UserError: The groups do not divide the maps of the images.
    """
    halting = config.halting
    require(
        dataset.train is not None,
        "data.name",
        dataset.name,
        "a data set in memory, such as cifar10: groups of positions need its size",
    )
    assert dataset.train is not None
    side = dataset.train.images.shape[1]
    sizes = [min(halting.groups or side, size) for size, _ in _maps(side)]
    divides = all(size % part == 0 for part, (size, _) in zip(sizes, _maps(side), strict=True))
    require(
        divides,
        "halting.groups",
        halting.groups,
        f"a divisor of {side}, {side // 2} and {side // 4}, the sides of the maps",
    )
    network = create_model(
        config.train.model.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.train.model.dtype),
        **model_overrides(halting),
    )
    assert isinstance(network, AdaptiveResidualNetwork)
    return network


def model_overrides(halting: LatentConfig) -> dict[str, Any]:
    """Returns the options of the model that its configuration decides."""
    options: dict[str, Any] = {
        "head_norm": halting.head_norm,
        "temperature": halting.temperature,
        "groups": halting.groups or None,
    }
    if halting.units:
        options["stage_sizes"] = (halting.units,) * _BLOCKS
    if halting.width:
        options["widths"] = tuple(halting.width * 2**i for i in range(_BLOCKS))
    return options


def _watch(
    network: AdaptiveResidualNetwork, batch_size: int, seed: int
) -> Callable[[Any, DeviceSplit], dict[str, float]]:
    """Returns a function that measures the three modes on the first test images, for the log."""

    def assess(variables: Any, test: DeviceSplit) -> dict[str, float]:
        data = test.first(_WATCHED)
        batch = min(batch_size, data.size)
        uses = measure_all_modes(network, variables, data, batch_size=batch, seed=seed)
        values: dict[str, float] = {}
        for mode, use in uses.items():
            values[f"modes/error.{mode}"] = float(np.mean(use.error))
            values[f"modes/nll.{mode}"] = float(np.mean(use.nll))
            values[f"modes/flops.{mode}"] = float(np.mean(use.flops))
        return values

    return assess


def _maps(side: int) -> list[tuple[int, int]]:
    """Returns the map sizes of the three blocks of a CIFAR network."""
    return [(side >> i, side >> i) for i in range(_BLOCKS)]
