"""FLOPs of the units of an `AdaptiveBlock`, measured by tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adaptive_nets.analysis.macs import count_macs
from adaptive_nets.models.adaptive.unit_costs import Reach, UnitCost
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.perforation import ConvLayer, adapt_network, conv_layers
from adaptive_nets.runtime.errors import UserError


def unit_costs(units: Sequence[Any], input_shape: tuple[int, int, int]) -> tuple[UnitCost, ...]:
    """Counts the FLOPs of residual units that run one after another.

    FLOPs are twice the multiply-accumulates of `count_macs`. A convolution counts with the windows
    that follow it in its unit, by which a mask is dilated before it; of parallel branches, each
    counts as if it came before the next one. Matrix products count once per image.

    Args:
        units: unbound linen modules, as given to `AdaptiveBlock`.
        input_shape: (H, W, C) of the input of the first unit.

    Returns:
        One cost per unit, for ``AdaptiveBlock(units, rule, unit_costs=...)``.

    Raises:
        UserError: a unit is no linen module.
        NotImplementedError: the number of iterations of a loop is unknown at trace time.

    Example:
        >>> import flax.linen as nn
        >>> unit = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(4, (3, 3))])
        >>> unit_costs([unit], (8, 8, 4))[0].convolutions
        (((1, 1), 18432), ((0, 0), 18432))
    """
    costs, shape = [], tuple(input_shape)
    for i, unit in enumerate(units):
        if not hasattr(unit, "init"):
            raise UserError(f"units[{i}] is {type(unit).__name__}; expected a linen module")
        network: Any = adapt_network(unit)
        variables = abstract_variables(network, shape)
        layers = conv_layers(network, variables, shape)
        convolutions = tuple(
            (reach, 2 * layer.macs) for reach, layer in zip(_reaches(layers), layers, strict=True)
        )
        macs = count_macs(network, input_shape=shape)
        per_image = 2 * (macs - sum(layer.macs for layer in layers))
        costs.append(UnitCost(convolutions, per_image))
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        shape = jax.eval_shape(network.apply, variables, x).shape[1:]
    return tuple(costs)


def _reaches(layers: Sequence[ConvLayer]) -> list[Reach]:
    """Returns the dilation of each convolution's mask: the sum of the later windows' half sizes."""
    reaches, rows, columns = [], 0, 0
    for layer in reversed(layers):
        reaches.insert(0, (rows, columns))
        rows += layer.kernel_size[0] // 2
        columns += layer.kernel_size[1] // 2
    return reaches
