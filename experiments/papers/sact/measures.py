"""Cost per image of plain networks and of networks of adaptive depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from adaptive_nets.analysis import count_macs
from adaptive_nets.training.loop import TrainResult
from experiments.shared.adaptive_depth.measures import (
    counter,
    flops_metrics,
    measure_usage,
    use_arrays,
    use_metrics,
)
from experiments.suite.experiment import Metric


def plain_costs(model: Any, result: TrainResult) -> dict[str, Metric]:
    """Returns the FLOPs of a network that computes everything for every image.

    Args:
        model: The network.
        result: Result of its training.
    """
    macs = count_macs(model, input_shape=result.test.images.shape[1:])
    return flops_metrics(np.array([2.0 * macs]), count=result.test.size)


def adaptive_costs(
    model: Any, result: TrainResult, *, batch_size: int
) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:
    """Returns cost and use of units over the test set, and arrays for figures.

    Args:
        model: A network of adaptive depth.
        result: Result of its training.
        batch_size: Images per batch.
    """
    use = measure_usage(
        model,
        result.state.eval_variables,
        result.test,
        flops=counter(model, result.test),
        batch_size=batch_size,
    )
    return use_metrics(use), use_arrays(use)
