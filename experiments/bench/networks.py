"""Times forward passes of networks beside the same networks in PyTorch."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from adaptive_nets import create_model
from adaptive_nets.analysis import count_macs
from adaptive_nets.models import model_entry
from experiments.bench.torch_peer import LAYOUTS, NetworkJob, TorchPeer

OURS = "ours"
STAGES = ("compile initialisation", "initialise", "compile", "first pass")


@dataclasses.dataclass(frozen=True)
class ForwardTime:
    """Times of one contender, for one network and batch size.

    Attributes:
        name: Name of the network.
        batch: Images per pass.
        contender: "ours", or PyTorch with one of its layouts.
        macs: Multiply-accumulates per image.
        first_output: Seconds of each of `STAGES`, from `create_model` to the first output; ours
            only.
        seconds: Median time of a pass; None if none was timed.
        ratio: Median over rounds of our time over the contender's in the same round; None if none
            was timed.
        rounds: Number of rounds, in which contenders take turns.
    """

    name: str
    batch: int
    contender: str
    macs: int
    first_output: dict[str, float]
    seconds: float | None
    ratio: float | None
    rounds: int


def _ours(name: str, batch: int) -> tuple[Callable[[], float], dict[str, float]]:
    """Returns a timer of one pass, and the seconds of each stage up to the first output."""
    moments = [time.perf_counter()]

    def done(result: Any) -> Any:
        jax.block_until_ready(result)
        moments.append(time.perf_counter())
        return result

    model = create_model(name)
    images = jax.random.normal(jax.random.key(1), (batch, *model_entry(name).input_shape))
    initialise = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))
    initialise = done(initialise.lower(images[:1]).compile())
    variables = done(initialise(images[:1]))
    forward = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    forward = done(forward.lower(variables, images).compile())
    done(forward(variables, images))
    stages = {
        stage: round(after - before, 2)
        for stage, (before, after) in zip(STAGES, itertools.pairwise(moments), strict=True)
    }

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(forward(variables, images))
        return time.perf_counter() - began

    return once, stages


def time_forward(
    name: str, *, batch: int, rounds: int, peer: TorchPeer | None = None
) -> list[ForwardTime]:
    """Compiles and times a forward pass with random weights and inputs.

    Args:
        name: Name of the network.
        batch: Images per pass.
        rounds: Number of timed passes per contender, in turns; 0 times the first output alone.
        peer: PyTorch process, for the networks that it can build.

    Returns:
        Our times first, then PyTorch's for each layout.
    """
    once, stages = _ours(name, batch)
    contenders: dict[str, Callable[[], float]] = {OURS: once}
    if peer is not None and name in peer.networks and rounds:
        entry = model_entry(name)
        for layout in LAYOUTS:
            job = NetworkJob(name, (batch, *entry.input_shape), entry.num_classes, layout)
            contenders[f"PyTorch, {layout.replace('_', ' ')}"] = lambda job=job: peer.time(job)
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    names = list(contenders)
    for run in contenders.values() if rounds else ():
        run()
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
            first_output=stages if contender == OURS else {},
            seconds=round(statistics.median(times[contender]), 6) if rounds else None,
            ratio=round(
                statistics.median(
                    ours / theirs
                    for ours, theirs in zip(times[OURS], times[contender], strict=True)
                ),
                4,
            )
            if rounds
            else None,
            rounds=rounds,
        )
        for contender in names
    ]
