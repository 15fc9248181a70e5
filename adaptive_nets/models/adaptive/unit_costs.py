"""Cost per image of a block of a user's units, whose FLOPs are given or measured.

`adaptive_nets.analysis.unit_costs` measures them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.models.adaptive.cost import count_positions, head_flops
from adaptive_nets.models.output import BlockTrace
from adaptive_nets.runtime.errors import UserError

Reach = tuple[int, int]
"""(rows, columns) by which a unit's mask is dilated on each side."""


@dataclasses.dataclass(frozen=True)
class UnitCost:
    """Cost of a unit, in FLOPs of one image.

    Attributes:
        convolutions: (dilation of the mask, FLOPs over the whole map) of each convolution.
        per_image: FLOPs for every image with an active position, such as those of a gate per
            channel.
    """

    convolutions: tuple[tuple[Reach, int], ...]
    per_image: int = 0

    @property
    def total(self) -> int:
        """Returns the FLOPs of a unit that runs everywhere."""
        return self.per_image + sum(flops for _, flops in self.convolutions)


def as_unit_costs(costs: Sequence[UnitCost | int], units: int) -> tuple[UnitCost, ...]:
    """Returns one cost per unit; a number is the FLOPs of a unit over the whole map.

    Raises:
        UserError: the number of costs is not that of units, or a cost is no positive number.
    """
    if len(costs) != units:
        raise UserError(f"unit_costs has {len(costs)} entries; expected {units}, one per unit")
    found = []
    for i, cost in enumerate(costs):
        if isinstance(cost, UnitCost):
            found.append(cost)
        elif isinstance(cost, int) and not isinstance(cost, bool) and cost > 0:
            found.append(UnitCost((((0, 0), cost),)))
        else:
            raise UserError(
                f"unit_costs[{i}] is {cost!r}; expected FLOPs, a positive integer, or a UnitCost"
            )
    return tuple(found)


def units_flops(
    trace: BlockTrace, costs: Sequence[UnitCost], *, rule: str, channels: int
) -> Float[Array, "N"]:
    """Computes the FLOPs of each image in a block, halting heads included; may be compiled.

    The rule is that of `adaptive_nets.models.adaptive.cost`: the first unit runs everywhere, a
    convolution of a later unit on the unit's mask, dilated by the windows that follow it.

    Args:
        trace: trace of the block.
        costs: cost of each of the L units.
        rule: halting rule of the block.
        channels: channels of the heads' inputs.

    Returns:
        float32[N].
    """
    reaches = {reach for cost in costs for reach, _ in cost.convolutions}
    distinct = tuple(sorted({(0, 0), *reaches}))
    decisions, *dilated = count_positions(trace, distinct)
    positions = dict(zip(distinct, dilated, strict=True))
    area = trace.map_size[0] * trace.map_size[1]
    per_decision, per_image = head_flops(rule, channels)
    heads = jnp.sum(decisions[:, :-1], axis=1).astype(jnp.float32) * per_decision
    total = heads + float(costs[0].total + (len(costs) - 1) * per_image)
    for i, cost in enumerate(costs[1:], start=1):
        for reach, flops in cost.convolutions:
            total += positions[reach][:, i].astype(jnp.float32) * (flops / area)
        total += (positions[0, 0][:, i] > 0).astype(jnp.float32) * float(cost.per_image)
    return total
