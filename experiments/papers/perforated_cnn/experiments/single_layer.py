"""Runs one line of the comparison of masks: one layer and kind of mask at increasing rates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.perforation import ConvLayer, FilledLoss, PerforationPlan, conv_layers, make_plan
from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.perforated_cnn import measures
from experiments.papers.perforated_cnn.configs.fields import SingleLayerConfig
from experiments.papers.perforated_cnn.experiments import stages
from experiments.papers.perforated_cnn.experiments.source import Source, load_source
from experiments.suite.experiment import Metric, Outcome

# Perforation rate of the numbers in the table.
REFERENCE = 0.75
# Distance of the seeds of draws, so that those of neighbouring runs differ.
_SEEDS = 1000


def run(
    config: SingleLayerConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures one kind of mask; see `experiments.suite.experiment.Runner`."""
    del directory
    began = time.monotonic()
    measures.check_device(config.perforation.device)
    source = load_source(config.data, config.model, config.perforation.source, dataset, seed=seed)
    layers = conv_layers(source.model, source.variables, source.image_shape)
    layer = _find(layers, config.layer.name)
    draws = [
        plans_at_rates(source, layers, config, seed=seed + _SEEDS * draw)
        for draw in range(config.layer.draws)
    ]
    plans = [plan for plans in draws for plan in plans]
    train = source.training_images(config.layer.images, seed=seed)
    losses = _evaluate(source, layer, plans, *train, config, progress, f"{title}: training images")
    errors = _evaluate(source, layer, plans, *source.test_images(), config, progress,
                       f"{title}: test images")  # fmt: skip
    # The time depends on the number of kept positions, not on the draw.
    batch, seconds = config.timing.batches[-1], config.timing.seconds / len(draws[0])
    speeds = []
    for plan in draws[0]:
        mask = plan.layers[layer.name]
        speeds.append(measures.layer_metrics(layer, mask, batch=batch, seconds=seconds))
        progress.show(f"{title}: rate {mask.rate:.3f}, {speeds[-1]['layer_speedup'].value:.2f} x")
    keeps = np.array([plan.layers[layer.name].keep for plan in draws[0]])
    by_draw = (len(draws), len(keeps))
    loss_increases = (losses[1:, 0] - losses[0, 0]).reshape(by_draw)
    error_increases = (100 * (errors[1:, 1] - errors[0, 1])).reshape(by_draw)
    arrays: dict[str, np.ndarray] = {
        "rate": 1 - keeps,
        "loss_increase": loss_increases.mean(axis=0),
        "loss_deviation": _deviation(loss_increases),
        "error_increase": error_increases.mean(axis=0),
        "error_deviation": _deviation(error_increases),
        "draws": np.array(len(draws)),
        "layer_speedup": np.array([s["layer_speedup"].value for s in speeds]),
        "promised": 1 / keeps,
    }
    arrays |= {f"mask.{i}": plan.layers[layer.name].mask for i, plan in enumerate(draws[0])}
    at = int(np.argmin(np.abs(1 - keeps - REFERENCE)))
    note = f"{layer.name} at rate {1 - keeps[at]:.3f}"
    over = f"{note}, mean over {len(draws)} masks"
    count = source.test.size
    metrics = {
        "error": Metric(100 * float(errors[0, 1]), "%", count, f"network {source.digest}"),
        "error_increase": Metric(float(arrays["error_increase"][at]), "%", count, over),
        "error_deviation": Metric(
            _number(arrays["error_deviation"][at]), "%", len(draws), f"{note}, over masks"
        ),
        "loss_increase": Metric(float(arrays["loss_increase"][at]), "nats", len(train[1]), over),
        "layer_rate": Metric(float(100 * (1 - keeps[at])), "%", layer.positions, note),
        **speeds[at],
    }
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=0)


def _deviation(values: np.ndarray) -> np.ndarray:
    """Returns the sample standard deviation over the first axis; NaN for one value."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def plans_at_rates(
    source: Source, layers: tuple[ConvLayer, ...], config: SingleLayerConfig, *, seed: int
) -> list[PerforationPlan]:
    """Returns plans that perforate the layer alone, one for every rate."""
    values = config.layer
    impacts_fn = None
    if values.kind == "impact":
        impacts_fn = stages.impacts_fn(
            source, count=values.impact_images, batch_size=values.batch_size, seed=seed + 1
        )
    plan = make_plan(jax.random.key(seed), layers, {}, model=config.model.name)
    impacts: Any = impacts_fn(plan, lambda: None) if impacts_fn else None
    plans = []
    for i, rate in enumerate(values.rates):
        if impacts_fn and plans and values.impact_on == "perforated":
            impacts = impacts_fn(plans[-1], lambda: None)
        key = jax.random.fold_in(jax.random.key(seed), i)
        drawn = make_plan(key, layers, {values.name: rate}, values.kind, impacts)
        plans.append(plan.replace(**drawn.layers))
    return plans


def _find(layers: tuple[ConvLayer, ...], name: str) -> ConvLayer:
    known = {layer.name: layer for layer in layers}
    if name not in known:
        raise UserError(f"--layer.name is {name!r}; {did_you_mean(name, known)}")
    return known[name]


def _evaluate(
    source: Source,
    layer: ConvLayer,
    plans: list[PerforationPlan],
    images: np.ndarray,
    labels: np.ndarray,
    config: SingleLayerConfig,
    progress: ProgressReporter,
    title: str,
) -> np.ndarray:
    """Returns loss and error of the unperforated network, then with each of the plans."""
    losses = FilledLoss(
        source.model, source.variables, sizes={layer.name: layer.output_size}, images=images,
        labels=labels, batch_size=config.layer.batch_size,
    )  # fmt: skip
    progress.start(title, done=0, total=losses.batches, unit="batches")
    done = 0

    def after_batch() -> None:
        nonlocal done
        done += 1
        progress.update(done)

    candidates = [(layer.name, plan.layers[layer.name].nearest) for plan in plans]
    values = losses.evaluate({}, candidates, after_batch=after_batch)
    progress.finish()
    return values
