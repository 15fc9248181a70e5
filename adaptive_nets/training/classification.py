"""Classification task: images with one label each, trained by mean cross-entropy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from adaptive_nets.data.device import DeviceSplit, take_eval_batch
from adaptive_nets.data.splits import WEIGHT
from adaptive_nets.models import auxiliary_logits_of, logits_of
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.evaluation import replicated_sharding
from adaptive_nets.training.losses import cross_entropy, is_error, is_top_error
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch, Objective, Task


def classification(
    *,
    label_smoothing: float = 0.0,
    auxiliary_weight: float = 0.3,
    penalty: Callable[[Any, Array], dict[str, Array]] | None = None,
) -> Objective:
    """Builds the objective: mean cross-entropy + weighted auxiliary losses + penalties.

    Penalties are reported by name. Auxiliary classifiers are reported as ``auxiliary_nll_1``,
    ``auxiliary_nll_2`` …, counted from the input.

    Args:
        label_smoothing: share of the target spread over all classes, of auxiliary targets too.
        auxiliary_weight: weight of each auxiliary classifier's cross-entropy; 0.3 in szegedy2014,
            0.4 in common recipes of v3.
        penalty: (params, step) -> named scalars that are added to the loss; None for no penalty.
    """

    def objective(output, batch, params, step):
        logits, labels = logits_of(output), batch["label"]
        losses = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss = jnp.mean(losses)
        metrics = {"nll": Mean.of(losses), "error": Mean.of(is_error(logits, labels))}
        for i, auxiliary in enumerate(auxiliary_logits_of(output), start=1):
            losses = cross_entropy(auxiliary, labels, label_smoothing=label_smoothing)
            loss += auxiliary_weight * jnp.mean(losses)
            metrics[f"auxiliary_nll_{i}"] = Mean.of(losses)
        for name, value in (penalty(params, step) if penalty else {}).items():
            loss += value
            metrics[name] = Mean.of(value)
        return loss, metrics

    return objective


def classification_measures(output: Any, batch: Batch) -> dict[str, Mean]:
    """Computes ``nll``, in nats per example, and ``error``, the fraction of wrong classes."""
    logits, labels, weight = logits_of(output), batch["label"], batch[WEIGHT]
    return {
        "nll": Mean.of(cross_entropy(logits, labels), weight),
        "error": Mean.of(is_error(logits, labels), weight),
    }


def classification_measures_with_top5(output: Any, batch: Batch) -> dict[str, Mean]:
    """Computes the measures of `classification_measures` and ``top5_error``."""
    errors = is_top_error(logits_of(output), batch["label"], top=5)
    return {
        **classification_measures(output, batch),
        "top5_error": Mean.of(errors, batch[WEIGHT]),
    }


def classification_task(
    model: Any,
    objective: Callable[[Timing], Objective] | None = None,
    *,
    label_smoothing: float = 0.0,
    top5: bool = False,
    **others: Any,
) -> Task:
    """Builds the task of predicting ``"label"`` from ``"image"``.

    Args:
        model: network whose output has logits.
        objective: objective of the task, see `Task`; None for mean cross-entropy.
        label_smoothing: label smoothing of the default objective.
        top5: whether to measure the top-5 error too.
        **others: further attributes of `Task`.
    """
    if objective is None:
        plain = classification(label_smoothing=label_smoothing)
        objective = lambda timing: plain  # noqa: E731
    measures = classification_measures_with_top5 if top5 else classification_measures
    return Task(model, objective, measures, _error_in_percent, **others)


def _error_in_percent(measured: Mapping[str, float]) -> dict[str, float]:
    return {"test error %": 100 * measured["error"]}


def make_predict(
    model: Any, *, batch_size: int = 1000, batch_sharding: NamedSharding | None = None
) -> Callable[[Any, DeviceSplit], np.ndarray]:
    """Builds a function (variables, split) -> int[M], predicted classes in stored order.

    Args:
        model: network, applied with ``train=False``.
        batch_size: examples per compiled step.
        batch_sharding: sharding of a batch; None for a single device.
    """

    @functools.partial(jax.jit, out_shardings=replicated_sharding(batch_sharding))
    def classify(variables, data, start):
        batch = take_eval_batch(data, start, batch_size=batch_size, sharding=batch_sharding)
        return jnp.argmax(logits_of(model.apply(variables, batch["image"], train=False)), axis=-1)

    def predict(variables: Any, data: DeviceSplit) -> np.ndarray:
        starts = range(0, data.size, batch_size)
        parts = [np.asarray(classify(variables, data, np.int32(start))) for start in starts]
        return np.concatenate(parts)[: data.size]

    return predict
