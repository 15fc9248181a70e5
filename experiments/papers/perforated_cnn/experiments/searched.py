"""Runs a row of NIN: greedy search on a trained network, fine-tuning, errors and costs."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.perforation import (
    ConvLayer,
    FilledLoss,
    GreedySearch,
    MeasuredTime,
    SearchResult,
    SearchSettings,
    conv_layers,
    perforate,
    pooling_counts,
    save_plan,
)
from adaptive_nets.perforation.candidates import searched_layers
from adaptive_nets.perforation.impact_structure import centre_bias, pooling_correlation
from adaptive_nets.perforation.search import STATE
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.batch_statistics import STATISTICS, reestimate_statistics
from experiments.papers.perforated_cnn import measures
from experiments.papers.perforated_cnn.configs.fields import SearchedConfig
from experiments.papers.perforated_cnn.experiments import stages
from experiments.papers.perforated_cnn.experiments.source import Source, load_source
from experiments.papers.perforated_cnn.experiments.whole_network import mask_arrays
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import RunInputField, resolve

VALUES = "values.json"
SEARCH = RunInputField("resumed", part="search")


def run(
    config: SearchedConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Searches, tunes and measures one network; see `experiments.suite.experiment.Runner`."""
    measures.check_device(config.perforation.device)
    values = config.train
    source = load_source(values.data, values.model, config.perforation.source, dataset, seed=seed)
    values = dataclasses.replace(values, data=source.data)
    shape = source.image_shape
    layers = conv_layers(source.model, source.variables, shape)
    macs = ExecutedMacs(source.model, source.variables, shape)
    impacts = stages.impacts_fn(
        source,
        count=config.search.impact_images,
        batch_size=config.search.batch_size,
        seed=seed + 1,
    )
    search = make_search(
        source, layers, macs, impacts, config, dataset.fingerprint, directory / "search", seed=seed
    )
    found = search.run(
        steps=config.search.steps,
        target=config.search.target,
        progress=progress,
        title=f"{title}: search",
    )
    plan = found.plan
    save_plan(directory / "plan.safetensors", plan)
    progress.show(
        f"{title}: {len(found.steps)} steps, ended by {found.ended}, "
        f"{config.search.cost} {found.reduction:.2f} x lower"
    )
    perforated = perforate(source.model, source.variables, plan, image_shape=shape)
    batch_size = values.data.eval_batch_size

    def error(name: str, network: Any, variables: Any = source.variables) -> dict[str, float]:
        return stages.cached_json(
            directory / VALUES,
            name,
            lambda: stages.evaluate_split(network, variables, source.test, batch_size=batch_size),
        )

    before, after = error("original", source.model), error("perforated", perforated)
    again = _with_new_statistics(perforated, source, config, error, seed=seed)
    trainable = create_model(
        values.model.name, num_classes=dataset.num_classes, **config.tuned_options
    )
    tuned = stages.tune(
        perforate(trainable, source.variables, plan),
        source.variables,
        values,
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=f"{title}: tuning",
    )
    result = tuned.evaluate(tuned.state.eval_variables, tuned.test)
    control = stages.tune_and_test(
        trainable,
        source.variables,
        values,
        cache=directory / VALUES,
        name="control",
        dataset=dataset,
        directory=directory / "control",
        seed=seed,
        progress=progress,
        title=f"{title}: tuning of the whole network",
    )
    save_plan(directory / "tuned.safetensors", plan, variables=tuned.state.eval_variables)
    metrics = error_metrics(before, after, result, control, note=f"network {source.digest}")
    metrics |= again
    metrics |= search_metrics(found)
    metrics |= measures.cost_metrics(
        source.model, source.variables, plan, image_shape=shape, macs=macs
    )
    arrays = mask_arrays(plan) | search_arrays(search, found, macs)
    maps = impacts(search.plan_at_step(0), lambda: None)
    metrics |= impact_metrics(layers, maps)
    arrays |= {f"impact.{n.name}": maps[n.name].astype(np.float32) for n in searched_layers(layers)}
    promised = metrics["macs_reduction"].value
    assert promised is not None
    metrics |= measures.speed_metrics(
        source.model, source.variables, plan, image_shape=shape, macs_reduction=promised,
        config=config.timing, announce=lambda text: progress.show(f"{title}: {text}"),
    )  # fmt: skip
    return Outcome(metrics, arrays, seconds=tuned.seconds, steps=tuned.timing.total_steps)


def _with_new_statistics(
    perforated: Any, source: Source, config: SearchedConfig, error: Any, *, seed: int
) -> dict[str, Metric]:
    """Returns the error before fine-tuning with statistics of batches that are perforated too.

    Batch normalisation keeps the statistics of the unperforated network otherwise.
    """
    if STATISTICS not in source.variables:
        return {}
    count, size = config.search.images, config.search.batch_size
    images, _ = source.training_images(count, seed=seed)
    batches = [images[i : i + size] for i in range(0, len(images) - size + 1, size)] or [images]
    found = error(
        "new statistics", perforated, reestimate_statistics(perforated, source.variables, batches)
    )
    note = f"batch normalisation re-estimated on {size * len(batches):,} training images"
    return {"reestimated_error": Metric(100 * found["error"], "%", int(found["count"]), note)}


def make_search(
    source: Source,
    layers: tuple[ConvLayer, ...],
    macs: ExecutedMacs,
    impacts: Any,
    config: SearchedConfig,
    fingerprint: str,
    directory: Path,
    *,
    seed: int,
) -> GreedySearch:
    """Makes the search in its folder, from the state of another run if one is configured."""
    values = config.search
    if values.begin_from and not (directory / STATE).exists():
        _copy_search(values.begin_from, directory, seed)
    images, labels = source.training_images(values.images, seed=seed)
    sizes = {layer.name: layer.output_size for layer in searched_layers(layers)}
    losses = FilledLoss(
        source.model, source.variables, sizes=sizes, images=images, labels=labels,
        batch_size=values.batch_size,
    )  # fmt: skip
    cost_fn: Any = macs
    if values.cost == "time":
        batch = measures.random_images(values.batch_size, source.image_shape)
        cost_fn = MeasuredTime(source.model, source.variables, batch, rounds=values.runs)
    return GreedySearch(
        layers,
        losses=losses,
        cost_fn=cost_fn,
        impacts_fn=impacts,
        settings=SearchSettings(
            values.kinds, values.repetitions, values.impact_on, order=values.order
        ),
        seed=seed,
        directory=directory,
        identity={
            "network": source.digest,
            "data": fingerprint,
            "images": len(images),
            "impact images": values.impact_images,
            "cost": values.cost,
            "batch size": values.batch_size,
        },
        model=config.train.model.name,
    )


def _copy_search(run: str, directory: Path, seed: int) -> None:
    found = resolve(run, SEARCH, flag="search.begin_from", seed=seed).path
    if not (found / STATE).is_file():
        raise UserError(
            f"--search.begin-from is {run!r}, whose search has no {STATE}; expected the folder of "
            "a run of another row of the same network"
        )
    shutil.copytree(found / "plans", directory / "plans", dirs_exist_ok=True)
    shutil.copyfile(found / STATE, directory / STATE)


def error_metrics(
    before: Any, after: Any, tuned: Any, control: Any, *, note: str
) -> dict[str, Metric]:
    """Returns test errors of the networks and their increases.

    Args:
        before: Values of the original network.
        after: Values of the perforated network.
        tuned: Values of the perforated network after fine-tuning.
        control: Values of the original network after the same fine-tuning. Against it, the increase
            does not count what more training of any network gains.
        note: Note on the original network.
    """
    count = int(before["count"])

    def increase(values: Any, base: Any, note: str) -> Metric:
        return Metric(100 * (values["error"] - base["error"]), "%", count, note)

    return {
        "error": Metric(100 * before["error"], "%", count, note),
        "perforated_error": Metric(100 * after["error"], "%", count),
        "tuned_error": Metric(100 * tuned["error"], "%", count),
        "control_error": Metric(
            100 * control["error"], "%", count, "unperforated, tuned as long with the same recipe"
        ),
        "error_increase": increase(after, before, "points"),
        "tuned_error_increase": increase(tuned, before, "points"),
        "tuned_increase_over_control": increase(
            tuned, control, "points; against the unperforated network tuned as long"
        ),
    }


def search_metrics(found: SearchResult) -> dict[str, Metric]:
    """Returns steps, reduction and increase of the loss of the search."""
    last = found.steps[-1].loss if found.steps else found.loss
    return {
        "search_steps": Metric(float(len(found.steps)), "steps", 1, f"ended by {found.ended}"),
        "search_reduction": Metric(found.reduction, "x", 1, "of the cost of the search"),
        "search_loss_increase": Metric(last - found.loss, "nats", 1, "on training images"),
    }


def search_arrays(
    search: GreedySearch, found: SearchResult, macs: ExecutedMacs
) -> dict[str, np.ndarray]:
    """Returns loss, reduction of cost and MACs, layer and keep fraction by step of the search."""
    plans = [search.plan_at_step(step.number) for step in found.steps]
    amounts = [found.seconds_or_macs, *(step.seconds_or_macs for step in found.steps)]
    return {
        "search_loss": np.array([found.loss, *(step.loss for step in found.steps)]),
        "search_reduction": found.seconds_or_macs / np.array(amounts),
        "search_macs_reduction": macs.whole / np.array([macs.whole, *map(macs, plans)], np.float64),
        "search_layer": np.array([step.layer for step in found.steps], np.str_),
        "search_keep": np.array([step.keep for step in found.steps], np.float64),
    }


def impact_metrics(layers: tuple[ConvLayer, ...], maps: dict[str, np.ndarray]) -> dict[str, Metric]:
    """Returns the centre bias of impact maps and their correlation with the pooling grid."""
    metrics = {}
    for layer in searched_layers(layers):
        impact = maps[layer.name]
        # Random weights may have no gradient, and then no impact.
        bias = centre_bias(impact) if impact.sum() > 0 else None
        metrics[f"centre_bias.{layer.name}"] = Metric(
            bias, "x", impact.size, "central half over all" if bias else "no impact"
        )
        if layer.pooling is None:
            continue
        pooling = layer.pooling
        counts = pooling_counts(layer.output_size, pooling.window, pooling.strides, pooling.padding)
        value = pooling_correlation(impact, counts)
        note = (
            ""
            if value is not None and math.isfinite(value)
            else "undefined: the impacts or the pooling counts are constant"
        )
        metrics[f"pooling_correlation.{layer.name}"] = Metric(value, "r", impact.size, note)
    return metrics
