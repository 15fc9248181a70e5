"""Time of a training step of all source networks, in one program and one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.stacked import StackedNetworks
from adaptive_nets.variational.deep_weight_prior import l2_penalty
from experiments.papers.dwp.fields import TimedSourcesConfig
from experiments.papers.dwp.networks import build
from experiments.shared.timing import medians, time_interleaved
from experiments.suite.experiment import Metric, Outcome

TOGETHER, APART = "seconds_together", "seconds_apart"


def run(
    config: TimedSourcesConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Times a step of all networks on one batch, in turns; see `suite.experiment.Runner`.

    The metrics are median seconds "seconds_together", one program of all networks, and
    "seconds_apart", a compiled step of one network that is called for each; and their ratio.
    """
    del directory
    began = time.monotonic()
    networks = StackedNetworks(build(config.train, config.network, dataset), config.sources.count)
    assert dataset.train is not None
    values = config.train
    batch = dataset.train.first(values.data.batch_size)
    images = jnp.asarray(batch.images, jnp.float32) / values.data.pixel_scale
    labels = jnp.asarray(batch.labels)
    optimiser = optax.adam(values.optimiser.learning_rate)

    def loss(params: Any) -> Any:
        logits = networks.module.apply({"params": params}, images, train=True)
        penalty = l2_penalty(params, config.sources.penalty)
        return jnp.mean(cross_entropy(jnp.asarray(logits), labels)) + penalty

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    stacked = networks.init(jax.random.key(seed), images[:1])["params"]
    one, together = jax.jit(step), jax.jit(jax.vmap(step))
    states = jax.vmap(optimiser.init)(stacked)
    alone = [
        jax.tree.map(lambda leaf, number=number: leaf[number], (stacked, states))
        for number in range(networks.count)
    ]
    times = medians(
        time_interleaved(
            {
                TOGETHER: lambda: _wait(together(stacked, states)),
                APART: lambda: _wait([one(*each) for each in alone]),
            },
            seconds=config.timing.seconds,
        )
    )
    count, note = networks.count, f"a step of {networks.count} networks, median"
    found = {name: Metric(value, "s", count, note) for name, value in times.items()}
    ratio = times[APART] / times[TOGETHER]
    found["together_speed_up"] = Metric(ratio, "x", count, "apart over together")
    progress.show(f"{title}: {summary(found)}")
    return Outcome(found, {}, seconds=time.monotonic() - began, steps=0)


def _wait(result: Any) -> None:
    jax.block_until_ready(result)


def summary(metrics: Mapping[str, Metric]) -> str:
    """Says the two times in one line."""
    first, second = metrics[TOGETHER], metrics[APART]
    return (
        f"a step of {first.count} networks takes {first.value:.3g} s in one program, "
        f"{second.value:.3g} s one after the other"
    )
