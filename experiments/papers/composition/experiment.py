"""Runs one seed: tunes a trained network with each method and with both, and measures all."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from adaptive_nets.data.splits import Dataset
from adaptive_nets.layers.sparse_network import LOG_SIGMA2, SparseNetwork
from adaptive_nets.models import create_model, logits_of
from adaptive_nets.models.adaptive.forms import adaptive_form
from adaptive_nets.models.adaptive.weights import init_from_plain, is_head
from adaptive_nets.models.weights import save_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.depth import adaptive_depth, set_head_bias
from adaptive_nets.training.distillation import distilled
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.loop import train
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Objective, Task
from adaptive_nets.variational import kl_divergence, linear_warmup
from adaptive_nets.variational.pruning import plain_params
from experiments.papers.composition.fields import CompositionConfig
from experiments.papers.composition.measures import (
    METHODS,
    Methods,
    Network,
    cost_metrics,
    measured_views,
)
from experiments.shared.ensembling.network import TrainedNetwork, evaluation_split, load_trained
from experiments.shared.export import NETWORK
from experiments.shared.normalisation import normalised_as
from experiments.suite.experiment import Metric, Outcome

RULE = "sact"


def run(
    config: CompositionConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Tunes and measures the networks; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    name = config.train.model.name
    plain = load_trained(config.start.weights, name, dataset, seed=seed, flag="start.weights")
    _adaptive_name(name)
    evaluation_split(dataset)
    data = normalised_as(config.train.data, plain.normalisation, flag="--start.weights")
    values = dataclasses.replace(config.train, data=data)
    networks = {"plain": Network(name, plain.module, plain.variables, None)}
    steps = 0
    for label in config.tuning.networks:
        methods = METHODS[label]
        folder = directory / label
        folder.mkdir(parents=True, exist_ok=True)
        task = composition_task(config, plain, dataset, methods)
        result = train(
            task, values, dataset=dataset, directory=folder, seed=seed, progress=progress,
            title=f"{title}: {label}",
        )  # fmt: skip
        networks[label] = _tuned(config, task, result.state.eval_variables, methods)
        save_network(
            folder / NETWORK,
            model=networks[label].name,
            num_classes=dataset.num_classes,
            variables=networks[label].variables,
            normalisation=plain.normalisation,
            note={
                "seed": seed, "data": dataset.name, "overrides": model_overrides(config, methods),
            },
        )  # fmt: skip
        steps = result.timing.total_steps
    metrics: dict[str, Metric] = {}
    for label, network in networks.items():
        costs = cost_metrics(network, config, plain.normalisation, dataset, networks["plain"])
        views = measured_views(
            network, config, plain.normalisation, dataset, seed=seed, store=directory / label,
            progress=progress, title=f"{title}: {label}",
        )  # fmt: skip
        metrics |= {f"{key}.{label}": metric for key, metric in (costs | views).items()}
        progress.show(
            f"{title}: {label}: {metrics[f'error.{label}'].value:.2f} % error, "
            f"{metrics[f'weights_kept.{label}'].value:.1f} % of the weights, "
            f"{metrics[f'flops_share.{label}'].value:.1f} % of the FLOPs"
        )
    return Outcome(metrics, {}, seconds=time.monotonic() - began, steps=steps)


def composition_task(
    config: CompositionConfig, plain: TrainedNetwork, dataset: Dataset, methods: Methods
) -> Task:
    """Builds the task of tuning the trained network with some of the methods.

    Args:
        config: configuration.
        plain: trained network; its predictions are followed in place of labels.
        dataset: data set of the tuning.
        methods: methods of the network.
    """
    network: Any = create_model(
        _adaptive_name(plain.name) if methods.adaptive else plain.name,
        num_classes=dataset.num_classes,
        dtype=jnp.dtype(config.train.model.dtype),
        **model_overrides(config, methods),
    )
    if methods.sparse:
        network = SparseNetwork(
            network,
            log_sigma2_init=config.variational.log_sigma2_init,
            threshold=config.variational.threshold,
            kept="*_head/*",
        )
    tau = config.halting.tau
    loss = adaptive_depth(lambda step: jnp.asarray(tau)) if methods.adaptive else classification()

    def teacher(images: Any) -> Any:
        return logits_of(plain.module.apply(plain.variables, images, train=False))

    follow = distilled(
        lambda timing: loss, teacher, share=config.tuning.distillation,
        temperature=config.tuning.softening,
    )  # fmt: skip

    def objective(timing: Timing) -> Objective:
        inner = follow(timing)
        return _with_divergence(inner, config, timing) if methods.sparse else inner

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        initial = set_head_bias(plain_params(params), config.halting.bias)
        filled = init_from_plain({"params": initial, **model_state}, plain.variables)
        weights = filled.pop("params")
        return network.with_noise(weights) if methods.sparse else weights, filled

    return classification_task(network, objective, start=start, rate_factors=_rate_factors(config))


def model_overrides(config: CompositionConfig, methods: Methods) -> dict[str, Any]:
    """Returns the options of the network that its configuration decides."""
    halting = config.halting
    return {"head_norm": halting.head_norm, "eps": halting.eps} if methods.adaptive else {}


def _adaptive_name(name: str) -> str:
    try:
        return adaptive_form(name, RULE)
    except UserError as error:
        raise UserError(f"--model.name: {error}") from error


def _with_divergence(inner: Objective, config: CompositionConfig, timing: Timing) -> Objective:
    """Adds the divergence of the variational bound, divided by the number of images."""
    variational = config.variational
    variational.check_times(timing)
    begin, end = timing.steps(variational.kl_start), timing.steps(variational.kl_full)

    def outer(output, batch, params, step):
        loss, metrics = inner(output, batch, params, step)
        weight = variational.kl_weight * linear_warmup(step, start=begin, end=end)
        divergence = weight * kl_divergence(params) / timing.examples
        return loss + divergence, {**metrics, "kl": Mean.of(divergence)}

    return outer


def _rate_factors(config: CompositionConfig) -> Any:
    """Returns (params) -> factors of the learning rate: 1 for log σ²."""
    plain, heads = config.tuning.plain_rate, config.tuning.head_rate

    def of_leaf(path: Any, leaf: Any) -> float:
        if path[-1].key == LOG_SIGMA2:
            return 1.0
        return heads if is_head(path[0].key) else plain

    return lambda params: jax.tree_util.tree_map_with_path(of_leaf, params)


def _tuned(config: CompositionConfig, task: Task, variables: Any, methods: Methods) -> Network:
    """Returns a tuned network with its removed weights at zero."""
    variables = jax.device_get(variables)
    name = config.train.model.name
    name = _adaptive_name(name) if methods.adaptive else name
    if not methods.sparse:
        return Network(name, task.model, variables, None)
    pruned = jax.device_get(task.model.pruned(variables))
    return Network(name, task.model.model, pruned, variables["params"])
