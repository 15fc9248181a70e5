"""Time of a network's forward pass, with the same network in PyTorch beside it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax

from adaptive_nets import create_model
from adaptive_nets.analysis import count_macs
from adaptive_nets.models import model_entry
from experiments.bench.torch_peer import LAYOUTS, NETWORKS, NetworkJob, TorchPeer

OURS = "ours"


@dataclasses.dataclass(frozen=True)
class ForwardTime:
    """One network at one batch size, one contender.

    Attributes:
        name: of the network.
        batch: images per pass.
        contender: "ours", or PyTorch with one of its layouts.
        macs: multiply-accumulates per image.
        compile_seconds: from `create_model` to the first output; ours only.
        seconds: median time of a pass.
        ratio: median over rounds of our time divided by this one's in the same round.
        rounds: how often each was timed, in turns.
    """

    name: str
    batch: int
    contender: str
    macs: int
    compile_seconds: float | None
    seconds: float
    ratio: float
    rounds: int


def _ours(name: str, batch: int) -> tuple[Callable[[], float], float]:
    """What times one pass, and the seconds until the first output."""
    began = time.perf_counter()
    model = create_model(name)
    images = jax.random.normal(jax.random.key(1), (batch, *model_entry(name).input_shape))
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(images[:1])
    forward = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    jax.block_until_ready(forward(variables, images))
    until_first = time.perf_counter() - began

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(forward(variables, images))
        return time.perf_counter() - began

    return once, until_first


def time_forward(
    name: str, *, batch: int, rounds: int, peer: TorchPeer | None = None
) -> list[ForwardTime]:
    """Compiles and times a forward pass with random weights and inputs.

    Args:
        name: of the network.
        batch: images per pass.
        rounds: how often each contender is timed, in turns.
        peer: PyTorch, for the networks that it knows.

    Returns:
        Ours first, then PyTorch's, one for each layout.
    """
    once, until_first = _ours(name, batch)
    contenders: dict[str, Callable[[], float]] = {OURS: once}
    if peer is not None and name in NETWORKS:
        for layout in LAYOUTS:
            job = NetworkJob(name, (batch, *model_entry(name).input_shape), layout)
            contenders[f"PyTorch, {layout.replace('_', ' ')}"] = lambda job=job: peer.time(job)
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for run in contenders.values():
        run()
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)
        for contender in names[first:] + names[:first]:
            times[contender].append(contenders[contender]())
    macs = count_macs(name)
    return [
        ForwardTime(
            name=name,
            batch=batch,
            contender=contender,
            macs=macs,
            compile_seconds=round(until_first, 2) if contender == OURS else None,
            seconds=round(statistics.median(times[contender]), 6),
            ratio=round(
                statistics.median(
                    ours / theirs
                    for ours, theirs in zip(times[OURS], times[contender], strict=True)
                ),
                4,
            ),
            rounds=rounds,
        )
        for contender in names
    ]
