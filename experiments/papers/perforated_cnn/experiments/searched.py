"""Runs a row of NIN: greedy search on a trained network, fine-tuning, errors and costs."""

from __future__ import annotations

import dataclasses
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
    SearchSettings,
    conv_layers,
    perforate,
    save_plan,
)
from adaptive_nets.perforation.candidates import searched_layers
from adaptive_nets.perforation.search import STATE
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.batch_statistics import STATISTICS, reestimate_statistics
from experiments.papers.perforated_cnn import measures
from experiments.papers.perforated_cnn.configs.fields import SearchedConfig
from experiments.papers.perforated_cnn.experiments import stages
from experiments.papers.perforated_cnn.experiments.search_results import (
    error_metrics,
    impact_metrics,
    search_arrays,
    search_metrics,
)
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
    _check_perforable(values.model.name, layers)
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
    interpolation = config.perforation.interpolation
    perforated = perforate(
        source.model, source.variables, plan, image_shape=shape, interpolation=interpolation
    )
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
        perforate(trainable, source.variables, plan, interpolation=interpolation),
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
        config=config.timing, interpolation=interpolation,
        announce=lambda text: progress.show(f"{title}: {text}"),
    )  # fmt: skip
    return Outcome(metrics, arrays, seconds=tuned.seconds, steps=tuned.timing.total_steps)


def _check_perforable(model: str, layers: tuple[ConvLayer, ...]) -> None:
    try:
        searched_layers(layers)
    except UserError as error:
        raise UserError(f"--model.name is {model!r}: {error}") from error


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
        cost_fn = MeasuredTime(
            source.model, source.variables, batch, rounds=values.runs,
            interpolation=config.perforation.interpolation,
        )  # fmt: skip
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
            **_explicit_times(config),
        },
        model=config.train.model.name,
    )


def _explicit_times(config: SearchedConfig) -> dict[str, str]:
    """Returns the entry of a search's identity for times of explicit interpolation."""
    explicit = config.search.cost == "time" and config.perforation.interpolation == "explicit"
    return {"interpolation": "explicit"} if explicit else {}


def _copy_search(run: str, directory: Path, seed: int) -> None:
    found = resolve(run, SEARCH, flag="search.begin_from", seed=seed).path
    if not (found / STATE).is_file():
        raise UserError(
            f"--search.begin-from is {run!r}, whose search has no {STATE}; expected the folder of "
            "a run of another row of the same network"
        )
    shutil.copytree(found / "plans", directory / "plans", dirs_exist_ok=True)
    shutil.copyfile(found / STATE, directory / STATE)
