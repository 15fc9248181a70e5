"""Runs one seed: trains a network whose convolutions have a prior, on few labelled images.

The seed chooses the labelled images, the initial weights and the noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from adaptive_nets.data.splits import Dataset
from adaptive_nets.data.stratified import stratified_subset
from adaptive_nets.layers.bayesian_convolutions import MEAN, SPREAD, BayesianConvolutions
from adaptive_nets.layers.interception import kernel_paths
from adaptive_nets.models.weights.stored import check_fits
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.task import Task
from adaptive_nets.variational.deep_weight_prior import (
    SliceGaussian,
    kl_standard_normal,
    kl_truncated_log_uniform,
    l2_penalty,
    network_kl_upper_bound,
    to_slices,
    truncated_log_alpha,
)
from adaptive_nets.variational.deep_weight_prior.sampling import KernelInitializer
from experiments.papers.dwp import measures
from experiments.papers.dwp.fields import FewShotConfig, PriorConfig
from experiments.papers.dwp.networks import build, export, kernel_sizes, start_from
from experiments.papers.dwp.prior_files import Size, SizePrior, resolve_priors
from experiments.shared.metrics import accuracy_metrics
from experiments.suite import run_inputs
from experiments.suite.experiment import Metric, Outcome

Penalty = Callable[[Any, Any], Array]
"""(parameters, key) -> divergence, nats."""

LOG_UNIFORM, DETERMINISTIC = "log-uniform", "deterministic"


def run(
    config: FewShotConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one network and measures it; see `experiments.suite.experiment.Runner`."""
    dataset = with_few_labels(dataset, config.labels.count, seed=seed)
    module = build(config.train, config.network, dataset)
    sizes = kernel_sizes(module, dataset)
    priors: dict[Size, SizePrior] = {}
    if config.prior.source:
        priors = resolve_priors(config.prior.source, sizes, flag="prior.source", seed=seed)
    start = _start(config, module, dataset, priors, seed)
    if config.prior.kind == DETERMINISTIC:
        network: Any = module
        task = _deterministic_task(config, module)
    else:
        log_uniform = config.prior.kind == LOG_UNIFORM
        network = BayesianConvolutions(
            module,
            spread="rate_logit" if log_uniform else "log_variance",
            start=None if log_uniform else config.prior.log_variance,
        )
        task = _bayesian_task(config, network, penalty_of(config.prior, network, priors), seed)
    result = train(
        dataclasses.replace(task, start=start), config.train, dataset=dataset,
        directory=directory, seed=seed, progress=progress, title=title,
    )  # fmt: skip
    metrics = _measured(config, network, module, result, dataset, seed)
    arrays = measures.curves(result.metrics_file, "test/error")
    plain = result.state.params
    if isinstance(network, BayesianConvolutions):
        arrays |= _spreads(network, plain)
        plain = plain[MEAN]
    metrics |= export(config.train, config.network, result, dataset, directory, seed, params=plain)
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def with_few_labels(dataset: Dataset, count: int, *, seed: int) -> Dataset:
    """Returns the set with so many training images, the same number of each class.

    Args:
        dataset: data set in memory.
        count: number of training images; 0 for all.
        seed: seed of the choice.

    Raises:
        UserError: the number is no multiple of the number of classes, or too large for a class.
    """
    if not count or dataset.train is None:
        return dataset
    labels, classes = dataset.train.labels, dataset.num_classes
    if count % classes:
        raise UserError(
            f"--labels.count is {count}; expected a multiple of {classes}, the number of classes "
            f"of {dataset.name}, for a stratified split"
        )
    fewest = int(np.bincount(labels, minlength=classes).min())
    if count > fewest * classes:
        raise UserError(
            f"--labels.count is {count}; expected at most {fewest * classes:,}, since a class of "
            f"{dataset.name} has {fewest:,} training images"
        )
    # Of balanced classes, so that every class has its share exactly.
    rows = np.concatenate([np.flatnonzero(labels == label)[:fewest] for label in range(classes)])
    chosen = rows[stratified_subset(labels[rows], count, seed=seed)]
    arrays = {name: array[np.sort(chosen)] for name, array in dataset.train.arrays.items()}
    return dataclasses.replace(dataset, train=dataset.train.replace(**arrays))


def penalty_of(
    config: PriorConfig, network: BayesianConvolutions, priors: Mapping[Size, SizePrior]
) -> Penalty:
    """Returns the divergence of the posterior from the prior of a configuration, nats.

    Args:
        config: prior.
        network: network with Gaussian kernels.
        priors: learnt prior of every kernel size, for "dwp" and "gaussian".
    """
    if config.kind == LOG_UNIFORM:
        return lambda params, key: _total(
            kl_truncated_log_uniform(truncated_log_alpha(logit))
            for logit in kernel_paths(params[SPREAD]).values()
        )
    if config.kind == "standard-normal":
        return lambda params, key: _total(
            kl_standard_normal(mean, jnp.log(variance))
            for mean, variance in network.moments(params).values()
        )
    if config.kind == "gaussian":
        gaussians = {size: prior.gaussian() for size, prior in priors.items()}
        return lambda params, key: _total(
            _gaussian_divergence(gaussians[mean.shape[0], mean.shape[1]], mean, variance)
            for mean, variance in network.moments(params).values()
        )
    vaes = [prior.vae for prior in priors.values()]

    def bound(params: Any, key: Any) -> Array:
        moments = network.moments(params)
        return network_kl_upper_bound(
            key,
            {path: mean for path, (mean, _) in moments.items()},
            {path: jnp.log(variance) for path, (_, variance) in moments.items()},
            vaes,
            samples=config.samples,
            subset=config.subset or None,
        )

    return bound


def _total(parts: Any) -> Array:
    return sum((jnp.sum(part) for part in parts), start=jnp.float32(0))


def _gaussian_divergence(gaussian: SliceGaussian, mean: Array, variance: Array) -> Array:
    return gaussian.kl_divergence(to_slices(mean), to_slices(jnp.log(variance)))


def _bayesian_task(
    config: FewShotConfig, network: BayesianConvolutions, penalty: Penalty, seed: int
) -> Task:
    base = jax.random.key(seed + 1)

    def bound(timing: Any) -> Any:
        # The bound is a sum over the labelled images; the loss is its mean.
        def divided(params: Any, step: Any) -> dict[str, Array]:
            return {"kl": penalty(params, jax.random.fold_in(base, step)) / timing.examples}

        return classification(
            label_smoothing=config.train.optimiser.label_smoothing, penalty=divided
        )

    return classification_task(network, bound)


def _deterministic_task(config: FewShotConfig, module: Any) -> Task:
    def penalty(params: Any, step: Any) -> dict[str, Array]:
        del step
        return {"penalty": l2_penalty(params, config.prior.penalty)}

    return classification_task(module, lambda timing: classification(penalty=penalty))


def _start(
    config: FewShotConfig, module: Any, dataset: Dataset, priors: Mapping[Size, SizePrior],
    seed: int,
) -> Callable[[Any, Any], tuple[Any, Any]] | None:  # fmt: skip
    """Returns the function that gives the means their initial values; None for Xavier."""
    inside = "" if config.prior.kind == DETERMINISTIC else MEAN
    init = config.prior.init
    if init == "xavier":
        return None
    if init == "pretrained":
        return _start_pretrained(config, module, dataset, inside, seed)
    initializers: dict[Size, KernelInitializer] = {
        size: prior.initializer(init) for size, prior in priors.items()
    }
    return start_from(initializers, seed=seed, inside=inside)


def _start_pretrained(
    config: FewShotConfig, module: Any, dataset: Dataset, inside: str, seed: int
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns the function that takes the convolutions of another network of the same shapes.

    Raises:
        UserError: the weights are of another network.
    """
    where = config.start.weights
    found = run_inputs.resolve(where, run_inputs.RunInputField(), flag="start.weights", seed=seed)
    params = run_inputs.load_network(found, config.train.model.name).variables["params"]
    assert dataset.test is not None
    image = jnp.zeros((1, *dataset.test.images.shape[1:]))
    expected = jax.eval_shape(lambda key: module.init(key, image), jax.random.key(0))["params"]
    convolutions = [name for name in expected if name.startswith("conv")]
    check_fits(
        {name: params[name] for name in convolutions},
        {name: expected[name] for name in convolutions},
        source=f"--start.weights {where}",
    )
    given = {name: jax.tree.map(jnp.asarray, params[name]) for name in convolutions}

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        if inside:
            return {**params, inside: {**params[inside], **given}}, model_state
        return {**params, **given}, model_state

    return start


def _measured(
    config: FewShotConfig, network: Any, module: Any, result: TrainResult, dataset: Dataset,
    seed: int,
) -> dict[str, Metric]:  # fmt: skip
    """Measures the mean weights, and sampled networks or, without samples, the network itself."""
    count = result.train.size
    metrics = accuracy_metrics(result, train_images=count)
    metrics["mean_accuracy"] = dataclasses.replace(
        metrics.pop("test_accuracy"), note="mean weights"
    )
    params = result.state.params
    if isinstance(network, BayesianConvolutions):
        sample, key = jax.jit(network.sample), jax.random.key(seed + 2)
        members = (
            sample(jax.random.fold_in(key, number), params)
            for number in range(config.prior.members)
        )
    else:
        members = iter([params])
    found = measures.ensemble_measures(module, members, result.test, classes=dataset.num_classes)
    return {**metrics, **found, "labels": Metric(float(count), "images", count)}


def _spreads(network: BayesianConvolutions, params: Any) -> dict[str, np.ndarray]:
    """Returns quantiles of log s² of every layer, "log_variance/conv1", float64[5]."""
    return {
        f"log_variance/{path}": np.quantile(np.log(np.asarray(variance)), (0, 0.25, 0.5, 0.75, 1))
        for path, (_, variance) in network.moments(params).items()
    }
