"""Folded weights of halting heads and of blocks, for the skipping form.

Normalisations are folded into adjacent linear functions if no ReLU is between them. Units 2 … L of
a block have equal shapes, so their weights are stacked: the loop over units is compiled once and
ends as soon as everything has halted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.models.adaptive.units import Scope, fold_norm


class HeadWeights(NamedTuple):
    """Weights of a halting head, float32.

    A normalisation that no ReLU follows is part of the weights; its scale and shift are None.

    Attributes:
        mean_weights: float[C], W.
        bias: float[], b.
        mean_scale: float[C], scale of the mean's normalisation; or None.
        mean_shift: float[C].
        scale: float[C], scale of x's normalisation; or None.
        shift: float[C].
        weights: float[3, 3, C], W̃; None for a head per image.
        tap_biases: float[3, 3], constant that each tap of W̃ adds on the map; or None.
    """

    mean_weights: Float[Array, " C"]
    bias: Float[Array, ""]
    mean_scale: Float[Array, " C"] | None = None
    mean_shift: Float[Array, " C"] | None = None
    scale: Float[Array, " C"] | None = None
    shift: Float[Array, " C"] | None = None
    weights: Float[Array, "3 3 C"] | None = None
    tap_biases: Float[Array, "3 3"] | None = None


class BlockWeights(NamedTuple):
    """Weights of units 2 … L of a block; the leaves have L − 1 rows.

    Attributes:
        units: weights of units 2 … L, as `UnitForm.fold` returns them, stacked.
        heads: weights of the heads after units 1 … L − 1, stacked.
    """

    units: Any
    heads: HeadWeights

    @property
    def count(self) -> int:
        """Number of stacked units, L − 1."""
        return self.heads.bias.shape[0]


def stack_block(units: Sequence[Any], heads: Sequence[HeadWeights]) -> BlockWeights:
    """Stacks the weights of units 2 … L and of their heads."""
    return BlockWeights(_stack(units), _stack(heads))


def fold_head(scope: Scope, *, epsilon: float, linear: bool) -> HeadWeights:
    """Returns the weights of a `HaltingHead`.

    Args:
        scope: variables of the head.
        epsilon: ε of its normalisations.
        linear: whether no ReLU follows the normalisations.
    """
    params = scope.params

    def affine(name: str) -> tuple[Array, Array] | tuple[None, None]:
        return fold_norm(scope, name, epsilon) if name in params else (None, None)

    overall = params["dense_global"]
    spatial = "conv_local" in params
    bias = params["bias"] if spatial else overall["bias"][0]
    head = HeadWeights(overall["kernel"][:, 0], bias, *affine("norm_global"))
    if spatial:
        scale, shift = affine("norm_local")
        weights = params["conv_local"]["kernel"][..., 0]
        head = head._replace(weights=weights, scale=scale, shift=shift)
    return _fold_linear(head) if linear else head


def _fold_linear(head: HeadWeights) -> HeadWeights:
    """Moves the normalisations into the weights."""
    if head.mean_scale is not None and head.mean_shift is not None:
        head = head._replace(
            mean_weights=head.mean_weights * head.mean_scale,
            bias=head.bias + head.mean_shift @ head.mean_weights,
            mean_scale=None,
            mean_shift=None,
        )
    if head.weights is not None and head.scale is not None and head.shift is not None:
        head = head._replace(
            weights=head.weights * head.scale[None, None],
            tap_biases=head.weights @ head.shift,
            scale=None,
            shift=None,
        )
    return head


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
