"""Measures of a trained network: sparsity, the exported file, and arrays for figures."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.models import create_model
from adaptive_nets.models.weights.stored import (
    check_fits,
    load_network,
    save_network,
)
from adaptive_nets.training.classification import make_predict
from adaptive_nets.training.loop import TrainResult
from adaptive_nets.variational import compression, layer_sparsity, prune
from adaptive_nets.variational.sparsity import variational_layers
from experiments.papers.sparse_vd.configs.fields import Config, SparseVDConfig
from experiments.shared.export import normalisation_of
from experiments.suite.experiment import Metric

# Suffix of the name of a variational model; the rest is the name of the plain network.
VARIANT = "_sparse_vd"
THRESHOLDS = np.arange(0.0, 6.5, 0.5)
HISTOGRAM_EDGES = np.linspace(-10.0, 10.0, 81)
PICTURED_UNITS = 40


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """Trained network with sparse variational dropout.

    Attributes:
        config: Configuration of the training.
        result: Result of the training.
        model: The variational network.
        num_classes: Number of its outputs.
        options: Options of the zoo for the dense network and the variational one.
    """

    config: SparseVDConfig
    result: TrainResult
    model: nn.Module
    num_classes: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def params(self) -> Any:
        """Parameters used for evaluation."""
        return self.result.state.eval_variables["params"]

    def pruned(self, threshold: float) -> dict[str, Any]:
        """Returns the variables of the plain network after pruning."""
        variables = self.result.state.eval_variables
        return {**variables, "params": prune(variables["params"], threshold=threshold)}

    @property
    def plain_name(self) -> str:
        """Name of the plain network that remains after pruning."""
        return self.config.train.model.name.removesuffix(VARIANT)

    def plain_model(self) -> nn.Module:
        """Builds the plain network that remains after pruning."""
        dtype = jnp.dtype(self.config.train.model.dtype)
        return create_model(
            self.plain_name, num_classes=self.num_classes, dtype=dtype, **self.options
        )


def sparsity_metrics(network: TrainedNetwork) -> dict[str, Metric]:
    """Returns the share of removed weights, per layer and in all, and the compression."""
    layers = layer_sparsity(network.params, threshold=network.config.variational.threshold)
    weights, kept = sum(x.weights for x in layers), sum(x.kept for x in layers)
    factor = compression(layers)
    finite = math.isfinite(factor)
    return {
        **{f"sparsity.{x.layer}": Metric(100 * x.sparsity, "%", x.weights) for x in layers},
        "sparsity": Metric(100 * (1 - kept / weights), "%", weights),
        "kept_weights": Metric(float(kept), "weights", weights),
        "compression": Metric(
            factor if finite else None,
            "x",
            weights,
            "" if finite else "infinite: no weight is kept",
        ),
    }


def export_pruned(
    network: TrainedNetwork, directory: Path, *, note: Mapping[str, Any]
) -> dict[str, Metric]:
    """Writes the pruned network to pruned.safetensors, reads it back and compares its predictions.

    The dense size is measured by a temporary file of the same network.
    """
    threshold = network.config.variational.threshold
    pruned = jax.device_get(network.pruned(threshold))
    common = {
        "model": network.plain_name,
        "num_classes": network.num_classes,
        "variables": pruned,
        "normalisation": normalisation_of(network.result),
        "note": {
            **note,
            "data": network.config.train.data.name,
            "threshold": threshold,
            "overrides": dict(network.options),
        },
    }
    file, dense_file = directory / "pruned.safetensors", directory / "unpruned.safetensors"
    size = save_network(file, **common, sparse=True)
    dense_size = save_network(dense_file, **common)
    dense_file.unlink()
    stored = load_network(file)
    check_fits(stored.variables, pruned, source=str(file))
    test = network.result.test
    before = make_predict(network.model)(network.result.state.eval_variables, test)
    after = make_predict(network.plain_model())(stored.variables, test)
    changed = float(np.sum(before != after))
    return {
        "file_size": Metric(float(size), "bytes"),
        "dense_file_size": Metric(float(dense_size), "bytes"),
        "changed_by_export": Metric(changed, "predictions", before.size),
    }


def threshold_sweep(network: TrainedNetwork) -> dict[str, np.ndarray]:
    """Computes test error and sparsity of the pruned network over the threshold on log α."""
    predict, test = make_predict(network.plain_model()), network.result.test
    labels = np.asarray(test.labels)
    errors, sparsities = [], []
    for threshold in THRESHOLDS:
        layers = layer_sparsity(network.params, threshold=float(threshold))
        predicted = predict(network.pruned(float(threshold)), test)
        errors.append(100 * np.mean(predicted != labels))
        sparsities.append(100 * (1 - sum(x.kept for x in layers) / sum(x.weights for x in layers)))
    return {
        "sweep_threshold": THRESHOLDS,
        "sweep_error": np.array(errors),
        "sweep_sparsity": np.array(sparsities),
    }


def log_alpha_histogram(network: TrainedNetwork) -> dict[str, np.ndarray]:
    """Computes histograms of log α per layer; the outermost bins include values beyond them."""
    arrays: dict[str, np.ndarray] = {"log_alpha_edges": HISTOGRAM_EDGES}
    for layer, _, rates in variational_layers(network.params):
        low, high = HISTOGRAM_EDGES[[0, -1]]
        values = np.clip(np.asarray(rates), low, high)
        arrays[f"log_alpha.{layer}"] = np.histogram(values, HISTOGRAM_EDGES)[0]
    return arrays


def sparsity_at_epochs(result: TrainResult, epochs: Iterable[int]) -> dict[str, Metric]:
    """Returns the logged share of removed weights at the ends of epochs that were evaluated."""
    wanted = {epoch * result.timing.steps_per_epoch: epoch for epoch in epochs}
    found = {}
    for line in result.metrics_file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("step") in wanted and "sparsity" in entry:
            epoch = wanted[entry["step"]]
            found[f"sparsity.epoch{epoch}"] = Metric(100 * entry["sparsity"], "%")
    return found


def first_layer(result: TrainResult, config: Config) -> dict[str, np.ndarray]:
    """Returns the weights of the first layer as images, and the weights kept per input pixel.

    Returns:
        ``first_layer``: float16[U, h, w], the units or filters with the largest norms, largest
            first;
        ``pixel_weights``: int32[H, W], kept weights per input pixel (dense first layers only).
    """
    params = result.state.eval_variables["params"]
    if isinstance(config, SparseVDConfig):
        params = prune(params, threshold=config.variational.threshold)
    name = min(layer for layer, leaves in params.items() if "kernel" in leaves)
    kernel = np.asarray(params[name]["kernel"])
    if kernel.ndim == 4:
        images = np.moveaxis(kernel[:, :, 0], -1, 0)
    else:
        height, width, channels = result.test.images.shape[1:]
        images = np.moveaxis(kernel.reshape(height, width, channels, -1).sum(axis=2), -1, 0)
    order = np.argsort(-np.sum(images**2, axis=(1, 2)), kind="stable")[:PICTURED_UNITS]
    arrays = {"first_layer": images[order].astype(np.float16)}
    if kernel.ndim == 2:
        height, width, _ = result.test.images.shape[1:]
        arrays["pixel_weights"] = (
            np.sum(kernel != 0, axis=1).reshape(height, width, -1).sum(axis=-1).astype(np.int32)
        )
    return arrays
