"""Times a network of adaptive depth in its skipping form beside the plain network.

The plain network runs the same weights without heads, compiled by XLA alone; see `adaptive_case`
for the weights and images.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from adaptive_nets.analysis import count_macs
from adaptive_nets.models.adaptive.cost import block_flops, flops_per_image
from adaptive_nets.models.stages import run_sequentially
from experiments.bench.adaptive_case import (
    Case,
    Network,
    one_stage,
    plain_name,
    plain_variables,
    skip_stage,
)
from experiments.shared.timing import medians, time_interleaved

PLAIN, SKIPPING = "plain", "skipping"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Times of a network or of one of its blocks.

    Attributes:
        part: "network", "block 1", ...
        stop_early: Share of positions that halted early, averaged over blocks.
        flops_share: FLOPs per image, heads included, over those of the plain network.
        time_share: Median over rounds of the time over the plain network's in the same round.
        excess: time_share / flops_share; 1 if time falls in proportion to FLOPs.
        seconds: Median time by contender.
        rounds: Number of rounds, in which contenders take turns.
    """

    part: str
    stop_early: float
    flops_share: float
    time_share: float
    excess: float
    seconds: dict[str, float]
    rounds: int


class WholeNetwork:
    """Programs of the plain and of the skipping network, compiled once for all shares."""

    def __init__(self, network: Network):
        """Makes the programs."""
        self.network = network
        self._plain = jax.jit(lambda variables, x: network.plain.apply(variables, x))
        self._skipping = jax.jit(lambda folded, x: network.model.apply(folded, x))
        settings = network.settings
        self._size = (settings.height, settings.width)
        self._macs = count_macs(plain_name(settings.name), input_shape=(*self._size, 3))

    def compare(self, case: Case, *, seconds: float) -> Comparison:
        """Times the whole network."""
        variables, images = plain_variables(case), self.network.images
        flops = flops_per_image(self.network.model, case.output, image_size=self._size)
        return _compare(
            "network",
            {PLAIN: lambda: self._plain(variables, images),
             SKIPPING: lambda: self._skipping(case.folded, images)},
            float(np.mean(flops)) / (2 * self._macs),
            case.output.blocks,
            seconds,
        )  # fmt: skip


def compare_block(
    network: Network, case: Case, stage: int, x: jax.Array, *, seconds: float
) -> Comparison:
    """Times one block on its input in the network."""
    variables = plain_variables(case)

    @jax.jit
    def plain(variables, x):
        return one_stage(
            network.plain, variables, stage, x, lambda units, x: run_sequentially(units, x, False)
        )

    @jax.jit
    def skipping(folded, x):
        def run(units, x):
            return skip_stage(network.model, folded, stage, units, x)

        return one_stage(network.model, folded, stage, x, run)

    flops = block_flops(network.model, case.output)[:, stage]
    return _compare(
        f"block {stage + 1}",
        {PLAIN: lambda: plain(variables, x), SKIPPING: lambda: skipping(case.folded, x)},
        float(np.mean(flops)) / (2 * network.block_macs[stage]),
        case.output.blocks[stage : stage + 1],
        seconds,
    )


def break_even(points: Sequence[Comparison]) -> float | None:
    """Returns the share of FLOPs below which skipping is faster than the plain network.

    Interpolates linearly between the measured points of whole networks.

    Returns:
        The share; None if skipping is slower at every point, and the largest measured share if it
        is faster at every point.
    """
    ordered = sorted(points, key=lambda point: point.flops_share)
    faster = [point for point in ordered if point.time_share < 1]
    if not faster:
        return None
    last = max(ordered.index(point) for point in faster)
    if last == len(ordered) - 1:
        return ordered[last].flops_share
    below, above = ordered[last], ordered[last + 1]
    part = (1 - below.time_share) / (above.time_share - below.time_share)
    return round(below.flops_share + part * (above.flops_share - below.flops_share), 4)


def _compare(
    part: str,
    programs: dict[str, Callable[[], Any]],
    flops_share: float,
    blocks: Any,
    seconds: float,
) -> Comparison:
    def waiting(program: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            jax.block_until_ready(program())

        return run

    contenders = {name: waiting(program) for name, program in programs.items()}
    times = time_interleaved(contenders, seconds=seconds)
    shares = [ours / theirs for ours, theirs in zip(times[SKIPPING], times[PLAIN], strict=True)]
    early = [np.mean(np.asarray(b.num_units) < b.weights.shape[-1]) for b in blocks]
    time_share = statistics.median(shares)
    return Comparison(
        part=part,
        stop_early=round(float(np.mean(early)), 4),
        flops_share=round(flops_share, 4),
        time_share=round(time_share, 4),
        excess=round(time_share / flops_share, 4),
        seconds={name: round(value, 5) for name, value in medians(times).items()},
        rounds=len(shares),
    )
