"""Runs a row of AlexNet or VGG-16: perforation by rule, and the costs of the real network.

Time, multiplications and memory need no data: they are measured with random weights on random
images. Errors need a prepared ImageNet and trained weights, from ``--perforation.source FILE``:

    adaptive-nets run ID --preset paper --perforation.source vgg16.pth --data-dir ROOT
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.perforation import PerforationPlan, conv_layers, make_plan, perforate, save_plan
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.perforated_cnn import measures
from experiments.papers.perforated_cnn.configs.fields import RuledConfig
from experiments.papers.perforated_cnn.experiments import imagenet_errors
from experiments.papers.perforated_cnn.experiments.source import SOURCE
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import load_network, resolve


def run(
    config: RuledConfig,
    *,
    dataset: Any,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Perforates one network and measures it; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    measures.check_device(config.perforation.device)
    name = config.model.name
    shape = model_entry(name).input_shape
    model = create_model(name, dtype=jnp.dtype(config.model.dtype))
    variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, *shape)), train=False))(
        jax.random.key(seed)
    )
    layers = conv_layers(model, variables, shape)
    macs = ExecutedMacs(model, variables, shape)
    rule = config.rule
    key = jax.random.key(seed)
    if rule.layer:
        plan = make_plan(key, layers, {rule.layer: rule.rate}, rule.kind, model=name)
    else:
        plan = measures.plan_with_fewer_macs(
            key,
            layers,
            macs,
            reduction=rule.reduction,
            falloff=rule.falloff,
            kind=rule.kind,
            model=name,
        )
    save_plan(directory / "plan.safetensors", plan)
    metrics = measures.cost_metrics(model, variables, plan, image_shape=shape, macs=macs)
    convolutions = [layer for layer in layers if layer.kernel_size != (1, 1)]
    metrics["conv_layers"] = Metric(float(len(convolutions)), "layers")
    metrics |= {
        f"keep.{layer}": Metric(100 * mask.keep, "%", mask.mask.size, mask.kind)
        for layer, mask in plan.layers.items()
    }
    promised = _require(metrics["macs_reduction"])
    metrics |= measures.speed_metrics(
        model, variables, plan, image_shape=shape, macs_reduction=promised, config=config.timing,
        announce=lambda text: progress.show(f"{title}: {text}"),
    )  # fmt: skip
    if rule.layer:
        (layer,) = (layer for layer in layers if layer.name == rule.layer)
        mask = plan.layers[rule.layer]
        metrics |= measures.layer_metrics(
            layer, mask, batch=config.timing.batches[-1], seconds=config.timing.seconds
        )
    if config.needs_data:
        found = resolve(config.perforation.source, SOURCE, flag="perforation.source", seed=seed)
        stored = load_network(found, name)
        batches, total = imagenet_errors.validation_batches(dataset, config, shape)
        networks = {"whole": model, "perforated": perforate(model, stored.variables, plan)}
        found = imagenet_errors.errors(
            networks, stored.variables, batches, stored.normalisation, progress=progress,
            title=f"{title}: validation images", total=total,
        )  # fmt: skip
        metrics |= imagenet_errors.error_metrics(found)
    return Outcome(metrics, mask_arrays(plan), seconds=time.monotonic() - began, steps=0)


def mask_arrays(plan: PerforationPlan) -> dict[str, np.ndarray]:
    """Returns ``mask.LAYER``: bool[H', W'] of every perforated layer."""
    return {f"mask.{name}": layer.mask for name, layer in plan.layers.items()}


def _require(metric: Metric) -> float:
    assert metric.value is not None
    return metric.value
