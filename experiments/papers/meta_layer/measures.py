"""Accuracy as the authors average it, its curve over training, and the size of a network.

The authors average the accuracies of the test batches of 128 images in stored order. The last batch
of CIFAR-10 has 16 images, each of which weighs 8 times as much as another, so a value is a multiple
of 1 / (79 · 128). The table has the best value of 20 epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from adaptive_nets.data.splits import WEIGHT, Dataset
from adaptive_nets.models import logits_of
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.training.classification import classification_measures
from adaptive_nets.training.losses import is_error
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch
from experiments.papers.meta_layer.fields import BATCH_MEAN
from experiments.suite.experiment import Metric

BATCH = 128
"""Images of a test batch of the authors."""
SHARE = "batch_share"
"""Name of the weights of `batch_shares` in a test set."""


def batch_shares(count: int, *, batch_size: int = BATCH) -> Float[np.ndarray, " M"]:
    """Returns weights under which the mean over images is the mean over batches of their means.

    Args:
        count: number M of images.
        batch_size: images of a batch; the last batch has the rest.

    Returns:
        float32[M], 1 / (number of images in the image's batch).
    """
    starts = np.arange(count) // batch_size * batch_size
    sizes = np.minimum(batch_size, count - starts)
    return (1.0 / sizes).astype(np.float32)


def with_batch_shares(dataset: Dataset) -> Dataset:
    """Adds `batch_shares` to the test set, for `batch_mean_measures`.

    The evaluation knows no positions of images, and its batches may be of another size than the
    authors'; a weight of every image makes the result independent of them.

    Raises:
        UserError: the test set is not in memory.
    """
    if dataset.test is None:
        raise UserError(
            f"--data.name is {dataset.name!r}; expected a data set in memory, such as cifar10"
        )
    test = dataset.test.replace(**{SHARE: batch_shares(len(dataset.test))})
    return dataclasses.replace(dataset, test=test)


def batch_mean_measures(output: Any, batch: Batch) -> dict[str, Mean]:
    """Computes ``nll``, ``error`` and, in a set with `batch_shares`, ``batch_mean_accuracy``."""
    measured = classification_measures(output, batch)
    if SHARE not in batch:
        return measured
    correct = 1.0 - jnp.asarray(is_error(logits_of(output), batch["label"]), jnp.float32)
    return {**measured, BATCH_MEAN: Mean.of(correct, batch[SHARE] * batch[WEIGHT])}


def curves(metrics_file: Path) -> dict[str, np.ndarray]:
    """Reads the curves of a run from its logged values.

    Returns:
        Of every evaluation, float64[E]: ``epoch``, ``accuracy`` (%, the authors' mean),
        ``plain_accuracy`` (%), ``test_nll`` (nats). Of every logged part of the training, mean over
        its steps, float64[T]: ``train_epoch``, ``train_accuracy`` (%), ``train_nll`` (nats).
    """
    lines = read_json_lines(metrics_file, entries={"step": int, "epoch": (int, float)})
    tests = [line for line in lines if f"test/{BATCH_MEAN}" in line]
    parts = [line for line in lines if "train/error" in line]
    return {
        "epoch": _column(tests, "epoch"),
        "accuracy": 100 * _column(tests, f"test/{BATCH_MEAN}"),
        "plain_accuracy": 100 - 100 * _column(tests, "test/error"),
        "test_nll": _column(tests, "test/nll"),
        "train_epoch": _column(parts, "epoch"),
        "train_accuracy": 100 - 100 * _column(parts, "train/error"),
        "train_nll": _column(parts, "train/nll"),
    }


def _column(lines: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([line[name] for line in lines], np.float64)


def curve_metrics(arrays: Mapping[str, np.ndarray], *, images: int) -> dict[str, Metric]:
    """Computes the metrics of the best and of the last evaluation.

    Args:
        arrays: result of `curves`, with at least one evaluation.
        images: number of test images.
    """
    accuracy, plain, epochs = (arrays[n] for n in ("accuracy", "plain_accuracy", "epoch"))
    best = int(np.argmax(accuracy))
    note = f"mean over batches of {BATCH}"
    return {
        "accuracy": Metric(
            float(accuracy[best]), "%", images, f"{note}, best of {len(accuracy)} evaluations"
        ),
        "last_accuracy": Metric(float(accuracy[-1]), "%", images, f"{note}, last evaluation"),
        "best_plain_accuracy": Metric(
            float(plain.max()), "%", images, f"best of {len(plain)} evaluations"
        ),
        "selection_gain": Metric(
            float(accuracy[best] - accuracy[-1]), "%", images, f"{note}, best less last evaluation"
        ),
        "best_epoch": Metric(float(epochs[best]), "epochs", len(epochs)),
    }
