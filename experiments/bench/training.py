"""Times the training step beside the same network written directly in JAX."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adaptive_nets.data import load
from adaptive_nets.data.device import epoch_order
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.setup import set_up
from experiments.bench import bare_lenet
from experiments.papers.sparse_vd.configs import SparseVDConfig
from experiments.papers.sparse_vd.experiment import dense_task, sparse_task
from experiments.suite.config import training
from experiments.suite.registry import experiments

CASES = {
    "lenet-300-100 dense": ("sparse_vd.table1.lenet-300-100-original", False),
    "lenet-300-100 sparse": ("sparse_vd.table1.lenet-300-100-sparse", True),
}
OURS, BARE, GROUPED = "ours", "bare", "bare, grouped"

# Runs n steps from a state and returns the new one.
Advance = Callable[[Any, int], Any]


@dataclasses.dataclass(frozen=True)
class Contender:
    """Implementation of the training.

    Attributes:
        create: Makes the initial state.
        advance: (state, n) -> state after n steps.
    """

    create: Callable[[], Any]
    advance: Advance


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rates of all contenders for one case.

    Attributes:
        case: Key of `CASES`.
        rates: Steps per second by contender, one value per round.
    """

    case: str
    rates: dict[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Returns the median rate of a contender."""
        return statistics.median(self.rates[name])

    def ratio(self, name: str) -> float:
        """Returns the median over rounds of our rate over a contender's in the same round."""
        pairs = zip(self.rates[OURS], self.rates[name], strict=True)
        return statistics.median(ours / other for ours, other in pairs)


def our_training(experiment: str) -> tuple[Contender, TrainConfig]:
    """Returns the training of the suite, as its loop calls it, and its configuration."""
    config = experiments()[experiment].presets["paper"].config
    values = training(config)
    dataset = load(values.data.name, source="embedded")
    sparse = isinstance(config, SparseVDConfig)
    task = sparse_task(config, dataset) if sparse else dense_task(config, dataset)
    setup = set_up(task, values, dataset, seed=0)

    def advance(state: Any, steps: int) -> Any:
        # Always from step 0, so that the shuffle of a new epoch is not timed.
        return setup.feed.advance(state, 0, steps)

    return Contender(setup.create_state, advance), values


def bare_training(config: TrainConfig, *, sparse: bool) -> dict[str, Contender]:
    """Returns the bare step, dispatched from Python and in a loop on the device."""
    train = load("mnist", source="embedded").train
    assert train is not None
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    mean = jnp.asarray(np.mean(train.images / 256.0, axis=0).reshape(-1), jnp.float32)
    order = epoch_order(jax.random.key(1), jnp.int32(0), len(train.labels))
    key = jax.random.key(2)
    step = bare_lenet.make_step(
        config.data.batch_size, sparse=sparse, weight_decay=config.optimiser.weight_decay
    )
    arrays = (images, labels, mean, order, key)
    once = jax.jit(step, donate_argnums=0)
    many = jax.jit(
        lambda state, n, *rest: lax.fori_loop(0, n, lambda _, s: step(s, *rest), state),
        donate_argnums=0,
    )

    def create() -> Any:
        return bare_lenet.init(jax.random.key(0), sparse=sparse)

    def call(state: Any, steps: int) -> Any:
        for _ in range(steps):
            state = once(state, *arrays)
        return state

    return {
        BARE: Contender(create, call),
        GROUPED: Contender(create, lambda state, n: many(state, jnp.int32(n), *arrays)),
    }


def compare(case: str, *, rounds: int, steps: int) -> Comparison:
    """Times all contenders in turns, after warm-up.

    Args:
        case: Key of `CASES`.
        rounds: Number of timings per contender.
        steps: Steps per timing.
    """
    experiment, sparse = CASES[case]
    ours, config = our_training(experiment)
    contenders = {OURS: ours, **bare_training(config, sparse=sparse)}
    states = {name: contender.create() for name, contender in contenders.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}

    def advance(name: str) -> None:
        states[name] = jax.block_until_ready(contenders[name].advance(states[name], steps))

    for name in contenders:
        advance(name)
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            advance(name)
            rates[name].append(steps / (time.perf_counter() - began))
    return Comparison(case, {name: tuple(values) for name, values in rates.items()})
