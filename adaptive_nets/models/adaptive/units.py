"""Residual units of networks of adaptive depth: shapes, cost and folded weights.

A `UnitForm` describes the units of a network. The skipping form, the cost counter and the folding
of weights depend on it alone, not on the network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

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
    """Folded weights of a unit: convolutions, and what a pre-activation unit does before them.

    Attributes:
        scale: float32[C], of ``act(x·scale + shift)`` before the convolutions; or None.
        shift: float32[C], or None.
        kernels: HWIO weights of the convolutions.
        biases: bias of each convolution, or None.
    """

    scale: Float[Array, " C"] | None
    shift: Float[Array, " C"] | None
    kernels: tuple[Float[Array, "KH KW I O"], ...]
    biases: tuple[Float[Array, " O"] | None, ...]


class _ChainUnits:
    """Units that are a chain of convolutions, run by `kernels.masked_unit`."""

    negative_slope: float = 0.0
    activates_sum: ClassVar[bool] = False

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
            activates_sum=self.activates_sum,
            execution_path=execution_path,
        )


@dataclasses.dataclass(frozen=True)
class PreActivationUnits(_ChainUnits):
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


@dataclasses.dataclass(frozen=True)
class PostActivationUnits(_ChainUnits):
    """Residual units of [he2015]: normalisation after each convolution, ReLU after the sum.

    A ReLU's output passes another ReLU unchanged, so a unit that does not run copies its input.

    Attributes:
        norms: scopes of the normalisations, one after each convolution.
        convs: scopes of the convolutions.
        epsilon: ε of the normalisations.
    """

    norms: tuple[str, ...]
    convs: tuple[str, ...]
    epsilon: float
    activates_sum: ClassVar[bool] = True

    def fold(self, scope: Scope, dtype: Any) -> UnitWeights:
        """Folds each normalisation into the convolution before it."""
        kernels, biases = [], []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            scale, shift = fold_norm(scope, norm, self.epsilon)
            kernel = scope.params[conv]["kernel"] * scale.reshape(1, 1, 1, -1)
            kernels.append(kernel.astype(dtype))
            biases.append(shift.astype(dtype))
        return UnitWeights(None, None, tuple(kernels), tuple(biases))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BasicShapes:
    """Shapes of units of 3x3 and 3x3; the first unit strides in its first 3x3.

    Attributes:
        projection: whether the shortcut of a first unit that changes the shape is a convolution.
    """

    projection: bool = False

    def channels(self, width: int) -> int:
        """See `UnitForm`."""
        return width

    def kernels(self, width: int) -> tuple[KernelShape, ...]:
        """See `UnitForm`."""
        return ((3, 3, width, width),) * 2

    def first_unit_flops(self, inputs: int, width: int, before: MapSize, after: MapSize) -> int:
        """See `UnitForm`."""
        positions = math.prod(after)
        flops = conv_flops(positions, (3, 3), inputs, width)
        flops += conv_flops(positions, (3, 3), width, width)
        if self.projection and (inputs, before) != (width, after):
            flops += conv_flops(positions, (1, 1), inputs, width)
        return int(flops)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottleneckShapes:
    """Shapes of units of 1x1, 3x3 and 1x1; the first unit has a projection.

    Attributes:
        stride_in_first: whether the first unit strides in its first 1x1 instead of its 3x3.
    """

    stride_in_first: bool = False

    def channels(self, width: int) -> int:
        """See `UnitForm`."""
        return 4 * width

    def kernels(self, width: int) -> tuple[KernelShape, ...]:
        """See `UnitForm`."""
        return (1, 1, 4 * width, width), (3, 3, width, width), (1, 1, width, 4 * width)

    def first_unit_flops(self, inputs: int, width: int, before: MapSize, after: MapSize) -> int:
        """See `UnitForm`."""
        positions = math.prod(after)
        of_first = positions if self.stride_in_first else math.prod(before)
        return int(
            conv_flops(of_first, (1, 1), inputs, width)
            + conv_flops(positions, (3, 3), width, width)
            + conv_flops(positions, (1, 1), width, 4 * width)
            + conv_flops(positions, (1, 1), inputs, 4 * width)
        )


@dataclasses.dataclass(frozen=True)
class BasicUnits(BasicShapes, PreActivationUnits):
    """Pre-activation units of 3x3 and 3x3."""


@dataclasses.dataclass(frozen=True)
class BottleneckUnits(BottleneckShapes, PreActivationUnits):
    """Pre-activation units of 1x1, 3x3 and 1x1."""


@dataclasses.dataclass(frozen=True)
class PostActivationBasicUnits(BasicShapes, PostActivationUnits):
    """Units of [he2015] of 3x3 and 3x3."""


@dataclasses.dataclass(frozen=True)
class PostActivationBottleneckUnits(BottleneckShapes, PostActivationUnits):
    """Units of [he2015] of 1x1, 3x3 and 1x1."""


def fold_norm(
    scope: Scope, name: str, epsilon: float
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Returns a batch normalisation with its running statistics as scale and shift, float32."""
    params, statistics = scope.params[name], scope.statistics[name]
    scale = params["scale"] / jnp.sqrt(statistics["var"] + epsilon)
    return scale, params["bias"] - statistics["mean"] * scale
