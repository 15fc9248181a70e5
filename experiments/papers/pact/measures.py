"""Measures of one network in three modes, and of updates by difficulty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models.adaptive.blocks import Mode
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork
from experiments.shared.adaptive_depth.measures import DepthUsage, counter, measure_usage
from experiments.suite.experiment import Metric

MODES: tuple[Mode, ...] = ("relaxed", "discrete", "thresholded")


def measure_all_modes(
    network: AdaptiveResidualNetwork,
    variables: Any,
    data: DeviceSplit,
    *,
    batch_size: int,
    seed: int,
) -> dict[Mode, DepthUsage]:
    """Measures the same parameters relaxed, discrete and thresholded.

    Args:
        network: Network with probabilistic blocks.
        variables: Its variables; other collections are ignored.
        data: Images with labels.
        batch_size: Images per batch.
        seed: Seed of the sampled decisions.
    """
    kept = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    return {
        mode: measure_usage(
            network,
            kept,
            data,
            flops=counter(network, data),
            batch_size=batch_size,
            rngs={} if mode == "thresholded" else {"halting": jax.random.key(seed)},
            mode=mode,
        )
        for mode in MODES
    }


def mode_metrics(uses: Mapping[Mode, DepthUsage]) -> dict[str, Metric]:
    """Returns accuracy, loss and cost of each mode, and the range of the accuracies."""
    metrics: dict[str, Metric] = {}
    for mode, use in uses.items():
        count = use.error.size
        metrics[f"accuracy.{mode}"] = Metric(use.accuracy, "%", count)
        metrics[f"nll.{mode}"] = Metric(float(np.mean(use.nll)), "nats", count)
        metrics[f"flops.{mode}"] = Metric(float(np.mean(use.flops)), "FLOPs", count, "per image")
    accuracies = [use.accuracy for use in uses.values()]
    metrics["mode_gap"] = Metric(
        max(accuracies) - min(accuracies), "%", next(iter(uses.values())).error.size,
        "percentage points between the best and the worst mode",
    )  # fmt: skip
    return metrics


def difficulty_metrics(
    numbers: np.ndarray, units: np.ndarray, costs: np.ndarray
) -> dict[str, Metric]:
    """Returns the mean updates of the state by difficulty of the time step.

    Args:
        numbers: int[N, T], difficulty: the count of numbers in a time step.
        units: int[N, T], updates.
        costs: float[N, T], ponder cost.
    """
    metrics = {}
    for k in range(1, int(numbers.max()) + 1):
        chosen = numbers == k
        count = int(chosen.sum())
        metrics[f"units.numbers{k}"] = Metric(float(units[chosen].mean()), "units", count)
        metrics[f"ponder.numbers{k}"] = Metric(float(costs[chosen].mean()), "units", count)
    varies = bool(np.std(units) > 0)
    metrics["difficulty_correlation"] = Metric(
        float(np.corrcoef(numbers.ravel(), units.ravel())[0, 1]) if varies else None,
        "r",
        units.size,
        "between the count of numbers in a time step and its updates"
        if varies
        else "undefined: all time steps take the same number of updates",
    )
    metrics["units"] = Metric(float(units.mean()), "units", units.size, "per time step")
    return metrics
