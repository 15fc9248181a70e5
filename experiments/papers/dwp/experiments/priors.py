"""Runs one seed: trains source networks, and priors of their kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.layers.kernel_vae import kernel_vae
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.distributed import is_process_0
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.stacked import StackedNetworks, stacked_task
from adaptive_nets.variational.deep_weight_prior import (
    LEAST_NORMS,
    collect_slices,
    l2_penalty,
    train_prior,
)
from experiments.papers.dwp import measures
from experiments.papers.dwp.fields import PRIORS, PriorsConfig, VAEConfig
from experiments.papers.dwp.networks import build, kernel_sizes
from experiments.papers.dwp.prior_files import SizePrior, read_size, size_text, write_size
from experiments.shared.export import export_network
from experiments.suite.experiment import Metric, Outcome


def run(
    config: PriorsConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains sources and priors; see `experiments.suite.experiment.Runner`."""
    values, sources = config.train, config.sources
    if values.optimiser.clip_norm or values.optimiser.ema_decay:
        raise UserError(
            "--optimiser.clip-norm and --optimiser.ema-decay are not 0; expected 0, since they mix "
            "the source networks"
        )
    module = build(values, config.network, dataset)
    networks = StackedNetworks(module, sources.count)
    task = stacked_task(networks, penalty=lambda params: l2_penalty(params, sources.penalty))
    result = train(
        task, values, dataset=dataset, directory=directory, seed=seed, progress=progress,
        title=f"{title}: {sources.count} source networks",
    )  # fmt: skip
    tested = result.evaluate(result.state.eval_variables, result.test)
    metrics = {
        "source_accuracy": Metric(
            100 - 100 * tested["error"], "%", int(tested["count"]), "mean of the source networks"
        )
    }
    arrays: dict[str, np.ndarray] = {}
    if is_process_0():
        for size in kernel_sizes(module, dataset):
            prior, chosen = _prior_of(
                config, result, size, directory / PRIORS, seed, progress, title
            )
            more, kept = measures.prior_measures(prior, config.vae, seed=seed)
            metrics, arrays = metrics | chosen | more, arrays | kept
            progress.show(f"{title}: {measures.prior_summary(size, metrics)}")
    metrics |= _export_first(config, result, dataset, directory, seed)
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def _prior_of(
    config: PriorsConfig, result: TrainResult, size: tuple[int, int], folder: Path, seed: int,
    progress: ProgressReporter, title: str,
) -> tuple[SizePrior, dict[str, Metric]]:  # fmt: skip
    """Trains the prior of one kernel size, or reads the one that this run has left."""
    sources, options = config.sources, config.vae
    relative = sources.relative_norm
    found = collect_slices(
        [jax.device_get(result.state.params)], size, stacked=True, relative=relative,
        least_norm=0.0 if relative else sources.least_norm or LEAST_NORMS.get(size, 0.0),
        at_least=10,
    )  # fmt: skip
    name = size_text(size)
    metrics = {
        f"slices.{name}": Metric(float(len(found.slices)), "slices", found.found),
        f"share_kept.{name}": Metric(100 * found.share_kept, "%", found.found, "slices kept"),
        f"least_norm.{name}": Metric(found.least_norm, "", found.found),
    }
    kept = read_size(folder, size)
    if kept is not None:
        return kept, metrics
    train_slices, held_out = found.split(sources.held_out, seed=seed)
    if options.train_limit:
        train_slices = train_slices[: options.train_limit]
    progress.show(f"{title}: prior of {len(train_slices):,} slices of {name}")
    trained = train_prior(
        kernel_vae(
            jax.random.key(seed), size, hidden=options.hidden or None, latent=options.latent or None
        ),
        train_slices,
        held_out=held_out if len(held_out) else None,
        epochs=_epochs(options, len(train_slices)),
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed + seed,
        progress=progress,
    )
    prior = SizePrior(jax.device_get(trained.prior), train_slices, held_out)
    write_size(folder, prior, note=_note(config, found.least_norm, seed))
    return prior, metrics


def _epochs(options: VAEConfig, slices: int) -> int:
    """Returns the number of passes that makes enough steps."""
    steps = slices // min(options.batch_size, slices)
    return max(options.epochs, -(-options.least_steps // steps))


def _note(config: PriorsConfig, least_norm: float, seed: int) -> Mapping[str, Any]:
    return {
        "data": config.train.data.name,
        "model": config.train.model.name,
        "networks": config.sources.count,
        "least_norm": least_norm,
        "seed": seed,
    }


def _export_first(
    config: PriorsConfig, result: TrainResult, dataset: Dataset, directory: Path, seed: int
) -> dict[str, Metric]:
    """Exports the first source network, for --start.weights of a target of the same widths."""
    params = jax.tree.map(lambda leaf: leaf[0], result.state.params)
    first = dataclasses.replace(
        result, state=dataclasses.replace(result.state, params=params, ema={})
    )
    return export_network(
        config.train, first, dataset.num_classes, directory, seed,
        overrides=config.network.overrides(),
    )  # fmt: skip
