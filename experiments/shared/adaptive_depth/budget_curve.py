"""Accuracy over budget of one trained network, beside networks that were tuned for one τ each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.halting import BudgetCalibration
from adaptive_nets.models.adaptive.budgets import BudgetedNetwork, calibrate_budget, with_budget
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.shared.adaptive_depth.budget_configs import BudgetConfig
from experiments.shared.ensembling.network import (
    TrainedNetwork,
    evaluation_split,
    load_trained,
    training_split,
)
from experiments.suite.experiment import Metric, Outcome

LEAST, MOST = "least_share", "most_share"


def run(
    config: BudgetConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures accuracy and cost at each budget; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    name, batch = config.model.name, config.data.eval_batch_size
    network = load_trained(config.weights, name, dataset, seed=seed)
    others = [
        load_trained(where, name, dataset, seed=seed, flag=f"separate[{number}]")
        for number, where in enumerate(config.separate)
    ]
    test = evaluation_split(dataset)
    progress.show(f"{title}: costs of shifted halting logits, {config.budget.images} images")
    calibration = _calibrated(network, training_split(dataset), config, seed)
    least, most = (float(calibration.flops[i] / calibration.plain_flops) for i in (0, -1))
    outside = [share for share in config.budget.shares if not least <= share <= most]
    if outside and config.weights != "random":
        raise UserError(
            f"--budget.shares has {outside[0]:g}; expected from {least:.3f}, the first units of "
            f"this network, to {most:.3f}, the whole network"
        )
    budgeted = with_budget(network.module, network.variables, calibration)
    plain = float(calibration.plain_flops)
    metrics = {
        LEAST: Metric(100 * least, "%", note="first unit of every block"),
        MOST: Metric(100 * most, "%", note="all units, with halting heads"),
    }
    arrays: dict[str, list[float]] = {"accuracy": [], "flops_share": []}
    for share in config.budget.shares:
        wanted = min(max(share, least), most)
        accuracy, flops = _at_budget(budgeted, network, test, wanted, batch)
        metrics |= _point(f"budget{share:g}", accuracy, flops, plain, len(test.labels))
        error = 100 * (flops / (wanted * plain) - 1)
        metrics[f"budget_error.budget{share:g}"] = Metric(error, "%", count=len(test.labels))
        arrays["accuracy"].append(accuracy)
        arrays["flops_share"].append(100 * flops / plain)
        progress.show(f"{title}: budget {share:g}: {accuracy:.2f} % correct, {error:+.2f} % cost")
    separate: dict[str, list[float]] = {"separate_accuracy": [], "separate_flops_share": []}
    for number, other in enumerate(others):
        accuracy, flops = _unchanged(other, test, batch)
        label = f"separate{number}"
        metrics |= _point(label, accuracy, flops, plain, len(test.labels))
        separate["separate_accuracy"].append(accuracy)
        separate["separate_flops_share"].append(100 * flops / plain)
        share = min(max(flops / plain, least), most)
        ours, _ = _at_budget(budgeted, network, test, share, batch)
        metrics[f"accuracy_at.{label}"] = Metric(ours, "%", count=len(test.labels))
        metrics[f"gap.{label}"] = Metric(ours - accuracy, "points", count=len(test.labels))
        progress.show(
            f"{title}: {100 * flops / plain:.1f} % of the FLOPs: {ours:.2f} % correct, the network "
            f"tuned for it {accuracy:.2f} %"
        )
    stored = {key: np.array(values) for key, values in (arrays | separate).items()}
    return Outcome(metrics, stored, time.monotonic() - began, 0)


def _calibrated(
    network: TrainedNetwork, train: Split, config: BudgetConfig, seed: int
) -> BudgetCalibration:
    count = min(config.budget.images, len(train.labels))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train.labels))[:count])
    images = jnp.asarray(network.normalisation.apply(np.asarray(train.images[chosen])))
    return calibrate_budget(
        network.module,
        network.variables,
        images,
        batch_size=config.data.eval_batch_size,
        evaluations=config.budget.evaluations,
    )


def _at_budget(
    budgeted: BudgetedNetwork, network: TrainedNetwork, test: Split, share: float, batch: int
) -> tuple[float, float]:
    """Returns accuracy in % and mean FLOPs at a budget."""

    def outputs(images: Array) -> Any:
        output = budgeted(images, share)
        return output, budgeted.flops(images, output)

    return _measured(outputs, network, test, batch)


def _unchanged(network: TrainedNetwork, test: Split, batch: int) -> tuple[float, float]:
    """Returns accuracy in % and mean FLOPs of a network as it was tuned."""
    model: Any = network.module  # of adaptive depth, as `calibrate_budget` checked

    @jax.jit
    def forward(variables: Any, images: Any) -> Any:
        return model.apply(variables, images, train=False, method="full_output")

    def outputs(images: Array) -> Any:
        output = forward(network.variables, images)
        height, width = images.shape[1:3]
        return output, flops_per_image(model, output, image_size=(height, width))

    return _measured(outputs, network, test, batch)


def _measured(
    outputs: Any, network: TrainedNetwork, test: Split, batch: int
) -> tuple[float, float]:
    size = min(batch, len(test.labels))
    correct = flops = 0.0
    for start in range(0, len(test.labels), size):
        pixels = np.asarray(test.images[start : start + size])
        count = len(pixels)
        # One shape, so that one program serves all batches.
        padded = np.concatenate([pixels, np.repeat(pixels[-1:], size - count, axis=0)])
        output, cost = outputs(jnp.asarray(network.normalisation.apply(padded)))
        labels = np.asarray(output.logits)[:count].argmax(-1)
        correct += float(np.sum(labels == np.asarray(test.labels[start : start + count])))
        flops += float(np.asarray(cost, np.float64)[:count].sum())
    return 100 * correct / len(test.labels), flops / len(test.labels)


def _point(
    label: str, accuracy: float, flops: float, plain: float, count: int
) -> dict[str, Metric]:
    return {
        f"test_accuracy.{label}": Metric(accuracy, "%", count=count),
        f"flops.{label}": Metric(flops, "FLOPs", count=count),
        f"flops_share.{label}": Metric(100 * flops / plain, "%", count=count),
    }
