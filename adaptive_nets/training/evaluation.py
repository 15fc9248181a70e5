"""Evaluation of a whole split: every example counted once, on any number of devices."""

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
"""(variables, a `DeviceSplit` or a streamed split) -> values."""


def make_evaluate(
    task: Task, *, batch_size: int, batch_sharding: NamedSharding | None = None
) -> Evaluate:
    """Builds (variables, split) -> the task's measures, and "count", the number of examples.

    Args:
        task: network and measures; the network is applied with ``train=False``.
        batch_size: examples per compiled step.
        batch_sharding: how batches lie on the devices, or None on a single one.
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
    """Values of the measures of a whole split, and how many examples it has."""
    if totals is None:
        raise ValueError("there is nothing to evaluate: the split is empty")
    return {**metrics_lib.compute(totals), "count": count}


def replicated_sharding(batch_sharding: NamedSharding | None) -> NamedSharding | None:
    """A copy on every device that batches lie on, so that every process can read it."""
    if batch_sharding is None:
        return None
    return NamedSharding(batch_sharding.mesh, PartitionSpec())
