"""Measures of a network: what it spends, and its predictions over numbers of views."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.analysis.macs import layer_macs
from adaptive_nets.data.splits import Dataset
from adaptive_nets.ensembling import (
    average_views,
    crop_views,
    load_policy,
    make_predictor,
    policy_views,
    unchanged_views,
)
from adaptive_nets.models import full_output
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.variational import layer_sparsity
from experiments.papers.composition.fields import CompositionConfig
from experiments.shared.digests import array_digest
from experiments.shared.ensembling.network import evaluation_split
from experiments.shared.ensembling.scores import CLL, score
from experiments.suite.experiment import Metric

VIEWS = {"": "the image itself", "crops_": "crops and flips", "policy_": "views of the policy"}
"""Prefix of metrics -> views that predictions are averaged over."""
_KEPT = ("error", "ll", CLL, "brier", "ece")
_UNIT = re.compile(r"layer(\d+)_(\d+)/")


class Methods(NamedTuple):
    """Methods that a network is tuned with."""

    sparse: bool
    adaptive: bool


METHODS = {
    "sparse": Methods(sparse=True, adaptive=False),
    "adaptive": Methods(sparse=False, adaptive=True),
    "both": Methods(sparse=True, adaptive=True),
}
"""Networks beside the plain one."""


@dataclasses.dataclass(frozen=True)
class Network:
    """Network that is evaluated.

    Attributes:
        name: name in the registry.
        module: the network.
        variables: its variables, NumPy arrays; removed weights are zero.
        posterior: parameters with log σ², of a sparse network.
    """

    name: str
    module: nn.Module
    variables: Any
    posterior: Any | None

    @property
    def is_adaptive(self) -> bool:
        """Whether its depth is adaptive."""
        return hasattr(self.module, "block_costs")


def cost_metrics(
    network: Network,
    config: CompositionConfig,
    normalisation: InputNormalisation,
    dataset: Dataset,
    plain: Network,
) -> dict[str, Metric]:
    """Counts weights and FLOPs of a network.

    FLOPs of kept weights: each convolution and dense layer in proportion to its kept weights. With
    adaptive depth, a unit counts by the share of positions that reach it, and the halting heads and
    the windows around active positions in proportion.

    Args:
        network: the network.
        config: configuration.
        normalisation: normalisation of its inputs.
        dataset: data set whose test images are counted.
        plain: the plain network, whose FLOPs and weights are 100 %.
    """
    images = evaluation_split(dataset).images
    shape = images.shape[1:]
    kept = _kept_shares(network)
    macs = {
        _path(scope): count for scope, count in layer_macs(plain.module, input_shape=shape).items()
    }
    whole = 2.0 * sum(macs.values())
    flops, reached = whole, {}
    if network.is_adaptive:
        flops, reached = _spent(network, normalisation, images, config.train.data.eval_batch_size)
    run = {path: count * reached.get(_unit(path), 1.0) for path, count in macs.items()}
    dense = sum(run.values())
    sparse = sum(count * kept.get(path, 1.0) for path, count in run.items())
    weights = layer_sparsity(network.posterior) if network.posterior is not None else ()
    total = sum(layer.weights for layer in weights)
    share = sum(layer.kept for layer in weights) / total if total else 1.0
    count = len(images)
    return {
        "weights_kept": Metric(100 * share, "%", total or 1, "of convolutions and dense layers"),
        "flops": Metric(flops, "FLOPs", count, "per image and view"),
        "flops_share": Metric(100 * flops / whole, "%", count, "of the plain network"),
        "kept_flops_share": Metric(
            100 * flops / whole * sparse / dense, "%", count, "of the plain network, kept weights"
        ),
    }


def _kept_shares(network: Network) -> dict[str, float]:
    if network.posterior is None:
        return {}
    return {layer.layer: layer.kept / layer.weights for layer in layer_sparsity(network.posterior)}


def _path(scope: str) -> str:
    """Returns the path of a layer, without the name of the network and of methods."""
    return "/".join(part for part in scope.split("/")[1:] if "." not in part)


def _unit(path: str) -> tuple[int, int] | None:
    """Returns the numbers of block and unit, from 0, of a layer of a unit."""
    match = _UNIT.match(path)
    return (int(match[1]) - 1, int(match[2])) if match else None


def _spent(
    network: Network, normalisation: InputNormalisation, images: np.ndarray, batch_size: int
) -> tuple[float, dict[Any, float]]:
    """Returns mean FLOPs per image, and the share of positions that reach each unit."""
    module: Any = network.module
    size = (images.shape[1], images.shape[2])
    forward = jax.jit(lambda x: full_output(module, network.variables, x, train=False))
    flops, reached = 0.0, {}
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        output = forward(jnp.asarray(normalisation.apply(part)))
        flops += float(np.sum(flops_per_image(module, output, image_size=size)))
        for block, trace in enumerate(output.blocks):
            units = np.asarray(trace.num_units)
            for unit in range(trace.weights.shape[-1]):
                share = float(np.mean(units > unit)) * len(part) / len(images)
                reached[block, unit] = reached.get((block, unit), 0.0) + share
    return flops / len(images), reached


def measured_views(
    network: Network,
    config: CompositionConfig,
    normalisation: InputNormalisation,
    dataset: Dataset,
    *,
    seed: int,
    store: Path,
    progress: ProgressReporter,
    title: str,
) -> dict[str, Metric]:
    """Measures predictions on images as they are, on crops and flips, and on a policy's views.

    Args:
        network: the network.
        config: configuration.
        normalisation: normalisation of its inputs.
        dataset: data set whose test images are predicted.
        seed: seed of views and of calibration.
        store: folder of the network; sums of views are kept there.
        progress: where to report.
        title: beginning of what is reported.

    Returns:
        Measures of the image itself by name; those of views have a prefix of `VIEWS`.
    """
    split = evaluation_split(dataset)
    predictor = make_predictor(network.module, network.variables, normalisation)
    kinds = {"": unchanged_views, "crops_": crop_views(config.views.padding)}
    if config.policy:
        kinds["policy_"] = policy_views(load_policy(config.policy))
    store.mkdir(parents=True, exist_ok=True)
    metrics = {}
    for prefix, views in kinds.items():
        count = config.views.counts[-1] if prefix else 1
        identity = {
            "network": array_digest(network.variables), "images": dataset.fingerprint,
            "count": len(split), "views": VIEWS[prefix], "policy": config.policy if prefix else "",
        }  # fmt: skip
        averaged = average_views(
            [predictor], split.images, views, counts=(count,), seed=seed,
            batch_size=config.train.data.eval_batch_size,
            store=store / f"{prefix}views.npz", identity=identity, progress=progress,
            title=f"{title}: {VIEWS[prefix]}",
        )[count]  # fmt: skip
        found = score(averaged, split.labels, config.calibration, seed=seed)
        note = f"{count} views, {VIEWS[prefix]}" if prefix else ""
        metrics |= {
            f"{prefix}{name}": metric
            for name, metric in found.metrics(note=note).items()
            if name in _KEPT and metric.value is not None and math.isfinite(metric.value)
        }
    return metrics
