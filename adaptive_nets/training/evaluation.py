"""Evaluation of a whole split: every example counted once, on any number of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adaptive_nets.data.device import DeviceSplit, take_eval_batch
from adaptive_nets.models import logits_of
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.losses import cross_entropy, is_error
from adaptive_nets.training.metrics import Mean

Evaluate = Callable[[Any, Any], dict[str, float]]
"""(variables, a `DeviceSplit` or `StreamedSplit`) -> values."""


def make_evaluate(
    model: nn.Module, *, batch_size: int, batch_sharding: NamedSharding | None = None
) -> Evaluate:
    """Builds (variables, split) -> {"nll": nats per example, "error": fraction, "count": examples}.

    Args:
        model: the network; it is applied with ``train=False``.
        batch_size: examples per compiled step.
        batch_sharding: how batches lie on the devices, or None on a single one.
    """

    @functools.partial(jax.jit, out_shardings=_replicated_sharding(batch_sharding))
    def evaluate_batch(variables, data, start):
        batch = take_eval_batch(data, start, batch_size=batch_size, sharding=batch_sharding)
        logits = logits_of(model.apply(variables, batch["image"], train=False))
        weight = batch["weight"]
        return {
            "nll": Mean.of(cross_entropy(logits, batch["label"]), weight),
            "error": Mean.of(is_error(logits, batch["label"]), weight),
        }

    def evaluate(variables: Any, data: DeviceSplit) -> dict[str, float]:
        totals = None
        for start in range(0, data.size, batch_size):
            batch = evaluate_batch(variables, data, np.int32(start))
            totals = metrics_lib.merge(totals, batch) if totals else batch
        if totals is None:
            raise ValueError("there is nothing to evaluate: the split is empty")
        return {**metrics_lib.compute(totals), "count": data.size}

    return evaluate


def make_predict(
    model: nn.Module, *, batch_size: int = 1000, batch_sharding: NamedSharding | None = None
) -> Callable[[Any, DeviceSplit], np.ndarray]:
    """Builds (variables, split) -> predicted class of every example in stored order, int[M].

    Args:
        model: the network; it is applied with ``train=False``.
        batch_size: examples per compiled step.
        batch_sharding: how batches lie on the devices, or None on a single one.
    """

    @functools.partial(jax.jit, out_shardings=_replicated_sharding(batch_sharding))
    def classify(variables, data, start):
        batch = take_eval_batch(data, start, batch_size=batch_size, sharding=batch_sharding)
        return jnp.argmax(logits_of(model.apply(variables, batch["image"], train=False)), axis=-1)

    def predict(variables: Any, data: DeviceSplit) -> np.ndarray:
        starts = range(0, data.size, batch_size)
        parts = [np.asarray(classify(variables, data, np.int32(start))) for start in starts]
        return np.concatenate(parts)[: data.size]

    return predict


def _replicated_sharding(batch_sharding: NamedSharding | None) -> NamedSharding | None:
    """A copy on every device that batches lie on, so that every process can read it."""
    if batch_sharding is None:
        return None
    return NamedSharding(batch_sharding.mesh, PartitionSpec())
