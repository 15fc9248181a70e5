"""Measures of priors, of networks on few labels, and of training curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from adaptive_nets.data.device import DeviceSplit, take_eval_batch
from adaptive_nets.ensembling.averaging import RunningAverage
from adaptive_nets.ensembling.pieces import in_pieces
from adaptive_nets.models import logits_of
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.variational.deep_weight_prior import log_density, negative_elbo, sample_slices
from experiments.papers.dwp.fields import VAEConfig
from experiments.papers.dwp.prior_files import SizePrior, size_text
from experiments.suite.experiment import Metric

SHOWN = 64
"""Slices of a size that a record keeps for pictures."""
# Draws of z in the ELBO of held-out slices.
_ELBO_SAMPLES = 100
_BATCH = 1000

Values = Mapping[str, Metric]


def prior_measures(
    prior: SizePrior, config: VAEConfig, *, seed: int
) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:
    """Measures a prior on held-out slices, nats per slice.

    Returns:
        Metrics "elbo", "log_density" (importance-weighted) and "gaussian" (log-density of a
        Gaussian of full covariance), with ".7x7" for the size; "gain", ELBO less Gaussian, with its
        standard error; "ordered", the share of slices whose ELBO is below the estimate. And slices
        for pictures: "source/7x7", "sample/7x7", "mean/7x7", float32[<= 64, h, w].
    """
    size, key = size_text(prior.vae.kernel_size), jax.random.key(seed)
    slices = prior.held_out[: config.measured]
    arrays = {f"source/{size}": prior.train[:SHOWN]}
    for draw in ("sample", "mean"):
        drawn = sample_slices(jax.random.fold_in(key, 1), prior.vae, SHOWN, draw=draw)
        arrays[f"{draw}/{size}"] = np.asarray(drawn)
    if not len(slices):
        return {}, arrays
    elbo, density = (
        np.asarray(found, np.float64)
        for found in _densities(prior.vae, slices, jax.random.fold_in(key, 2), config.samples)
    )
    gaussian = np.asarray(prior.gaussian().log_density(slices), np.float64)
    count, gain = len(slices), elbo - gaussian
    error = float(gain.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    ordered = float(np.mean(elbo <= density + 1e-3))
    return {
        f"elbo.{size}": Metric(float(elbo.mean()), "nats", count, "held-out slices"),
        f"log_density.{size}": Metric(
            float(density.mean()), "nats", count, f"importance weights, {config.samples} draws"
        ),
        f"gaussian.{size}": Metric(float(gaussian.mean()), "nats", count, "full covariance"),
        f"gain.{size}": Metric(float(gain.mean()), "nats", count, "ELBO less Gaussian"),
        f"gain_error.{size}": Metric(error, "nats", count, "standard error over slices"),
        f"ordered.{size}": Metric(100 * ordered, "%", count, "ELBO below the estimate"),
    }, arrays


def _densities(vae: Any, slices: np.ndarray, key: Array, samples: int) -> tuple[Array, Array]:
    @jax.jit
    def of(vae, slices):
        first, second = jax.random.split(key)
        elbo = -negative_elbo(first, slices, vae, samples=min(_ELBO_SAMPLES, samples))
        return elbo, log_density(second, slices, vae, samples=samples)

    return of(vae, jnp.asarray(slices))


def prior_summary(size: tuple[int, int], metrics: Values) -> str:
    """Says what a prior is worth in one line."""
    name = size_text(size)
    slices = metrics[f"slices.{name}"].value
    text = f"prior of {name}: {slices:,.0f} slices"
    if f"elbo.{name}" not in metrics:
        return text
    values = (metrics[f"{what}.{name}"].value for what in ("elbo", "log_density", "gaussian"))
    elbo, density, gaussian = values
    return (
        f"{text}; held-out ELBO {elbo:.2f}, log-density {density:.2f}, Gaussian {gaussian:.2f} nats"
    )


def ensemble_measures(
    module: nn.Module, members: Iterable[Any], test: DeviceSplit, *, classes: int
) -> dict[str, Metric]:
    """Measures the mean probability of sampled networks.

    Args:
        module: plain network.
        members: parameters of each network.
        test: test images.
        classes: number of classes.

    Returns:
        "accuracy" and "ensemble_nll" of all, "sample_accuracy", the mean of single networks.
    """
    labels = np.asarray(test.arrays["label"])[: test.size]
    average, singles = RunningAverage.empty(test.size, classes), []
    predict = _predictor(module)
    for params in members:
        log_probs = predict(params, test)
        singles.append(float(np.mean(log_probs.argmax(axis=1) == labels)))
        average = average.add(log_probs)
    found = average.log_mean()
    count, note = len(labels), f"mean probability of {len(singles)} samples"
    nll = -float(found[np.arange(count), labels].mean())
    return {
        "accuracy": Metric(100 * float(np.mean(found.argmax(axis=1) == labels)), "%", count, note),
        "ensemble_nll": Metric(nll, "nats", count, note),
        "sample_accuracy": Metric(100 * float(np.mean(singles)), "%", count, "mean of samples"),
    }


def _predictor(module: nn.Module) -> Callable[[Any, DeviceSplit], np.ndarray]:
    @jax.jit
    def of_batch(params, data, start):
        batch = take_eval_batch(data, start, batch_size=_BATCH)
        logits = in_pieces(
            lambda images: logits_of(module.apply({"params": params}, images, train=False)),
            batch["image"],
        )
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def predict(params: Any, data: DeviceSplit) -> np.ndarray:
        parts = [
            np.asarray(of_batch(params, data, np.int32(start)))
            for start in range(0, data.size, _BATCH)
        ]
        return np.concatenate(parts)[: data.size]

    return predict


def curves(metrics_file: Path, measure: str) -> dict[str, np.ndarray]:
    """Reads a measure over training: "step", int[E], and "value", float[E].

    Args:
        metrics_file: logged values of a run.
        measure: logged name, such as "test/error".
    """
    lines = read_json_lines(metrics_file, entries={"step": int})
    found = [(line["step"], line[measure]) for line in lines if measure in line]
    return {
        "step": np.array([step for step, _ in found], np.int64),
        "value": np.array([value for _, value in found], np.float64),
    }


def at_steps(
    curve: Mapping[str, np.ndarray], name: str, steps: Iterable[int], *, unit: str, count: int
) -> dict[str, Metric]:
    """Returns the values of a curve at steps, "accuracy.25", where it has them."""
    values = dict(zip(curve["step"].tolist(), curve["value"].tolist(), strict=True))
    return {f"{name}.{step}": Metric(values[step], unit, count) for step in steps if step in values}
