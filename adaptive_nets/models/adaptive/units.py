"""Residual units of networks of adaptive depth: shapes, cost and folded weights.

A `UnitForm` describes the units of a network. The skipping form, the cost counter and the folding
of weights depend on it alone, not on the network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from adaptive_nets.halting import conv_flops
from kernels.masked_unit import BlockState, ExecutionPath, masked_unit_with_sums

KernelShape = tuple[int, int, int, int]
"""(height, width, inputs, outputs)."""
MapSize = tuple[int, int]
"""(H, W)."""


class Scope(NamedTuple):
    """Variables of one submodule.

    Attributes:
        params: parameters of the submodule.
        statistics: running statistics of the submodule; empty if it has none.
    """

    params: Mapping[str, Any]
    statistics: Mapping[str, Any]


def variables_of(variables: Mapping[str, Any], name: str) -> Scope:
    """Returns the parameters and running statistics under a scope's name."""
    return Scope(variables["params"][name], variables.get("batch_stats", {}).get(name, {}))


class UnitForm(Protocol):
    """Form of a network's residual units.

    Units 2 … L of a block have stride 1 and equal shapes, and can skip. The first unit may change
    the shape and always runs as a linen module.
    """

    def channels(self, width: int) -> int:
        """Returns the number of a unit's output channels."""
        ...

    def kernels(self, width: int) -> tuple[KernelShape, ...]:
        """Returns the shapes of the chain of convolutions of units 2 … L."""
        ...

    def first_unit_flops(self, inputs: int, width: int, before: MapSize, after: MapSize) -> int:
        """Returns the FLOPs of unit 1 for one image, projection included.

        Args:
            inputs: number of input channels.
            width: width of the unit.
            before: (H, W) of the input map.
            after: (H', W') of the output map.
        """
        ...

    def fold(self, scope: Scope, dtype: Any) -> Any:
        """Returns the folded weights of one unit for `run`, a pytree of arrays of `dtype`."""
        ...

    def run(
        self,
        weights: Any,
        state: BlockState,
        mask: Bool[Array, "N H W"],
        *,
        share: Float[Array, "N H W"] | None,
        execution_path: ExecutionPath | None,
    ) -> BlockState:
        """Runs a unit at the mask's positions; updates x, total and sums of the state.

        Args:
            weights: folded weights of the unit.
            state: state of the block before the unit.
            mask: bool[N, H, W].
            share: share of the unit's residual in ``state.total``; None without a total.
            execution_path: execution path of `kernels.masked_unit`.
        """
        ...


class UnitWeights(NamedTuple):
    """Folded weights of a pre-activation unit: convolutions after ``act(x·scale + shift)``.

    Attributes:
        scale: float32[C].
        shift: float32[C].
        kernels: HWIO weights of the convolutions.
        biases: bias of each convolution; None for the last one.
    """

    scale: Float[Array, " C"]
    shift: Float[Array, " C"]
    kernels: tuple[Float[Array, "KH KW I O"], ...]
    biases: tuple[Float[Array, " O"] | None, ...]


@dataclasses.dataclass(frozen=True)
class PreActivationUnits:
    """Pre-activation residual units: normalisation and (leaky) ReLU before each convolution.

    Attributes:
        norms: scopes of the normalisations.
        convs: scopes of the convolutions.
        epsilon: ε of the normalisations.
        negative_slope: slope of the leaky ReLUs; 0 for ReLU.
    """

    norms: tuple[str, ...]
    convs: tuple[str, ...]
    epsilon: float
    negative_slope: float

    def fold(self, scope: Scope, dtype: Any) -> UnitWeights:
        """Folds each normalisation but the first into the convolution before it."""
        scale, shift = fold_norm(scope, self.norms[0], self.epsilon)
        kernels: list[Array] = []
        biases: list[Array | None] = []
        for i, name in enumerate(self.convs):
            kernel, bias = scope.params[name]["kernel"], None
            if i + 1 < len(self.norms):
                after, bias = fold_norm(scope, self.norms[i + 1], self.epsilon)
                kernel = kernel * after.reshape(1, 1, 1, -1)
                bias = bias.astype(dtype)
            kernels.append(kernel.astype(dtype))
            biases.append(bias)
        return UnitWeights(scale, shift, tuple(kernels), tuple(biases))

    def run(
        self,
        weights: UnitWeights,
        state: BlockState,
        mask: Bool[Array, "N H W"],
        *,
        share: Float[Array, "N H W"] | None,
        execution_path: ExecutionPath | None,
    ) -> BlockState:
        """See `UnitForm`."""
        return masked_unit_with_sums(
            state,
            mask,
            weights.kernels,
            weights.biases,
            share=share,
            scale=weights.scale,
            shift=weights.shift,
            negative_slope=self.negative_slope,
            execution_path=execution_path,
        )


class BasicUnits(PreActivationUnits):
    """Units of 3x3 and 3x3; the first strides in its first 3x3, its shortcut has no weights."""

    def channels(self, width: int) -> int:
        """See `UnitForm`."""
        return width

    def kernels(self, width: int) -> tuple[KernelShape, ...]:
        """See `UnitForm`."""
        return ((3, 3, width, width),) * 2

    def first_unit_flops(self, inputs: int, width: int, before: MapSize, after: MapSize) -> int:
        """See `UnitForm`."""
        del before
        positions = math.prod(after)
        first = conv_flops(positions, (3, 3), inputs, width)
        return int(first + conv_flops(positions, (3, 3), width, width))


class BottleneckUnits(PreActivationUnits):
    """Units of 1x1, 3x3 and 1x1; the first strides in its 3x3 and has a projection."""

    def channels(self, width: int) -> int:
        """See `UnitForm`."""
        return 4 * width

    def kernels(self, width: int) -> tuple[KernelShape, ...]:
        """See `UnitForm`."""
        return (1, 1, 4 * width, width), (3, 3, width, width), (1, 1, width, 4 * width)

    def first_unit_flops(self, inputs: int, width: int, before: MapSize, after: MapSize) -> int:
        """See `UnitForm`."""
        positions = math.prod(after)
        return int(
            conv_flops(math.prod(before), (1, 1), inputs, width)
            + conv_flops(positions, (3, 3), width, width)
            + conv_flops(positions, (1, 1), width, 4 * width)
            + conv_flops(positions, (1, 1), inputs, 4 * width)
        )


def fold_norm(
    scope: Scope, name: str, epsilon: float
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Returns a batch normalisation with its running statistics as scale and shift, float32."""
    params, statistics = scope.params[name], scope.statistics[name]
    scale = params["scale"] / jnp.sqrt(statistics["var"] + epsilon)
    return scale, params["bias"] - statistics["mean"] * scale
