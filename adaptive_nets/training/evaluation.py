"""Evaluation of a whole split, each example counted once, on any number of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adaptive_nets.data.device import DeviceSplit, take_eval_batch
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.task import Task

Evaluate = Callable[[Any, Any], dict[str, float]]
"""(variables, `DeviceSplit` or streamed split) -> values by name."""


def make_evaluate(
    task: Task, *, batch_size: int, batch_sharding: NamedSharding | None = None
) -> Evaluate:
    """Builds a function (variables, split) -> measures of the task, and "count" of examples.

    Args:
        task: network and measures; the network is applied with ``train=False``.
        batch_size: examples per compiled step.
        batch_sharding: sharding of a batch; None for a single device.
    """

    @functools.partial(jax.jit, out_shardings=replicated_sharding(batch_sharding))
    def evaluate_batch(variables, data, start):
        rows = take_eval_batch(data, start, batch_size=batch_size, sharding=batch_sharding)
        return task.evaluate_batch(variables, rows)

    def evaluate(variables: Any, data: DeviceSplit) -> dict[str, float]:
        totals = None
        for start in range(0, data.size, batch_size):
            batch = evaluate_batch(variables, data, np.int32(start))
            totals = metrics_lib.merge(totals, batch) if totals else batch
        return finish(totals, data.size)

    return evaluate


def finish(totals: metrics_lib.Metrics | None, count: int) -> dict[str, float]:
    """Returns the measures of a whole split, and "count", its number of examples.

    Raises:
        ValueError: the split is empty.
    """
    if totals is None:
        raise ValueError(f"split has {count} examples; expected at least one to evaluate")
    return {**metrics_lib.compute(totals), "count": count}


def replicated_sharding(batch_sharding: NamedSharding | None) -> NamedSharding | None:
    """Returns the sharding that replicates over the batch's mesh, so every process can read."""
    if batch_sharding is None:
        return None
    return NamedSharding(batch_sharding.mesh, PartitionSpec())
