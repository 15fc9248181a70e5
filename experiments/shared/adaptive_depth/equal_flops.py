"""Plain networks of the cost of a network of adaptive depth: fewer units per block.

The control of figurnov2017: each block of the plain network has the rounded mean number of units
that the adaptive network runs in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaptive_nets.halting import conv_flops
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork
from adaptive_nets.models.adaptive.units import MapSize
from adaptive_nets.runtime.errors import UserError
from experiments.suite.records import RECORD, Record, read_record
from experiments.suite.run_inputs import RunInputField, resolve


def units_of_run(where: str, *, flag: str, seed: int) -> tuple[int, ...]:
    """Returns the rounded mean number of units per block that a run measured.

    Args:
        where: folder of a run of a network of adaptive depth.
        flag: name of the field that names it, for messages.
        seed: seed of the run; selects the same seed of a run with several.

    Raises:
        UserError: there is no such run, or its network has a fixed depth.
    """
    found = resolve(where, RunInputField(), flag=flag, seed=seed)
    path = found.path.with_name(RECORD)
    name = "--" + flag.replace("_", "-")
    if found.kind != "run" or not path.is_file():
        raise UserError(
            f"{name} is {where!r}, which has no record; expected the folder of a finished run of a "
            "network of adaptive depth"
        )
    sizes = rounded_units(read_record(path))
    if not sizes:
        raise UserError(
            f"{name} is {where!r}, a run of a network of fixed depth; expected a run of a network "
            "of adaptive depth"
        )
    return sizes


def rounded_units(record: Record) -> tuple[int, ...]:
    """Returns the rounded mean number of units of each block, at least 1; empty if not measured."""
    means: list[float] = []
    while (metric := record.metric(f"units.block{len(means) + 1}")) is not None:
        assert metric.value is not None
        means.append(metric.value)
    return tuple(max(1, math.floor(mean + 0.5)) for mean in means)


def proportional_units(
    network: AdaptiveResidualNetwork, map_sizes: Sequence[MapSize], *, flops: float
) -> tuple[int, ...]:
    """Returns the numbers of units per block whose plain network is nearest to a cost.

    For a published cost without numbers of units: all blocks shrink by the same factor, rounded.

    Args:
        network: network of adaptive depth at full size.
        map_sizes: (H, W) of the map of each block.
        flops: FLOPs per image.
    """
    full = network.stage_sizes
    candidates = {
        tuple(max(1, math.floor(size * part / max(full) + 0.5)) for size in full)
        for part in range(1, max(full) + 1)
    }
    return min(candidates, key=lambda sizes: abs(plain_flops(network, map_sizes, sizes) - flops))


def plain_flops(
    network: AdaptiveResidualNetwork, map_sizes: Sequence[MapSize], sizes: Sequence[int]
) -> int:
    """Returns the FLOPs per image of the plain network with these numbers of units per block."""
    total = network.fixed_flops(map_sizes, None)
    costs = network.block_costs(map_sizes, None)
    for cost, (height, width), size in zip(costs, map_sizes, sizes, strict=True):
        unit = sum(int(conv_flops(height * width, k[:2], k[2], k[3])) for k in cost.kernels)
        total += cost.first_unit + (size - 1) * unit
    return int(total)
