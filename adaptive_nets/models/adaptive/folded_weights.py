"""Parameters of a network of adaptive depth as the inference path reads them.

Normalisations are folded: into the convolution before them, or, before a unit's first one, into a
scale and a shift. Units of a stage after the first are alike and lie side by side in one array, for
a loop that is compiled once and ends when everything has halted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.models import resnet_v2_cifar
from adaptive_nets.models.adaptive.resnet import AdaptiveCifarResNet, AdaptiveNet
from adaptive_nets.models.adaptive.weights import check_halting_rule, head_name


class UnitWeights(NamedTuple):
    """A unit: ``pre(x) = act(x·scale + shift)``, then convolutions with biases.

    Attributes:
        scale: float[C].
        shift: float[C].
        kernels: HWIO weights.
        biases: one per kernel; the last convolution has none.
    """

    scale: Float[Array, " C"]
    shift: Float[Array, " C"]
    kernels: tuple[Float[Array, "KH KW I O"], ...]
    biases: tuple[Float[Array, " O"] | None, ...]


class HeadWeights(NamedTuple):
    """A halting head, in float32.

    Where no ReLU follows a normalisation it is part of the weights, and its scale and shift None.

    Attributes:
        mean_weights: float[C], W.
        bias: float[], b.
        mean_scale: float[C], of the normalisation of the mean; or None.
        mean_shift: float[C].
        scale: float[C], of the normalisation of x.
        shift: float[C].
        weights: float[3, 3, C], W̃; None for a head per image.
        tap_biases: float[3, 3], what each tap of W̃ adds where it is on the map; or None.
    """

    mean_weights: Float[Array, " C"]
    bias: Float[Array, ""]
    mean_scale: Float[Array, " C"] | None = None
    mean_shift: Float[Array, " C"] | None = None
    scale: Float[Array, " C"] | None = None
    shift: Float[Array, " C"] | None = None
    weights: Float[Array, "3 3 C"] | None = None
    tap_biases: Float[Array, "3 3"] | None = None


class StageWeights(NamedTuple):
    """A stage of L units without its first one, each array with an axis of L − 1 in front.

    Attributes:
        units: 2 … L.
        heads: after units 1 … L − 1.
    """

    units: UnitWeights
    heads: HeadWeights


@flax.struct.dataclass
class Prepared:
    """What `adaptive_inference.skip` runs.

    Attributes:
        variables: of the stem, the first unit of each stage and what follows the stages.
        stages: the rest; None for a stage of one unit.
    """

    variables: dict[str, Any]
    stages: tuple[StageWeights | None, ...]


def prepare(model: AdaptiveNet, variables: Mapping[str, Any]) -> Prepared:
    """Folds and stacks the parameters of a trained network; do it once, outside the loop.

    Args:
        model: a network of adaptive depth.
        variables: of it.

    Returns:
        A pytree.

    Raises:
        UserError: the variables have heads of another rule.
    """
    rule = model.halting.rule
    check_halting_rule(variables["params"], rule, source="variables")
    cifar = isinstance(model, AdaptiveCifarResNet)
    epsilon = resnet_v2_cifar.EPSILON if cifar else 1e-5
    norms, convs = (
        (("bn1", "bn2"), ("conv1", "conv2"))
        if cifar
        else (("norm1", "norm2", "norm3"), ("conv1", "conv2", "conv3"))
    )
    taken: set[str] = set()
    stages: list[StageWeights | None] = []
    for stage, size in enumerate(model.stage_sizes):
        later = [model.unit_name(stage, i) for i in range(1, size)]
        headed = [head_name(model.unit_name(stage, i), rule) for i in range(size - 1)]
        units = [_unit(_scope(variables, n), norms, convs, epsilon, model.dtype) for n in later]
        heads = [_head(_scope(variables, name), epsilon, fold=not cifar) for name in headed]
        taken.update(later, headed)
        together = StageWeights(_stack(units), _stack(heads)) if units else None
        stages.append(together)
    rest = {
        kind: {name: value for name, value in tree.items() if name not in taken}
        for kind, tree in variables.items()
    }
    return Prepared(rest, tuple(stages))


def _scope(variables: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Parameters and running statistics under a name."""
    return variables["params"][name], variables.get("batch_stats", {}).get(name, {})


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _affine(scope: tuple[Any, Any], norm: str, epsilon: float) -> tuple[Array, Array]:
    """A normalisation as scale and shift, float32."""
    params, statistics = scope[0][norm], scope[1][norm]
    scale = params["scale"] / jnp.sqrt(statistics["var"] + epsilon)
    return scale, params["bias"] - statistics["mean"] * scale


def _unit(
    scope: tuple[Any, Any], norms: tuple[str, ...], convs: tuple[str, ...], epsilon: float, dtype
) -> UnitWeights:
    scale, shift = _affine(scope, norms[0], epsilon)
    kernels: list[Array] = []
    biases: list[Array | None] = []
    for i, name in enumerate(convs):
        kernel, bias = scope[0][name]["kernel"], None
        if i + 1 < len(norms):
            after, bias = _affine(scope, norms[i + 1], epsilon)
            kernel = kernel * after.reshape(1, 1, 1, -1)
            bias = bias.astype(dtype)
        kernels.append(kernel.astype(dtype))
        biases.append(bias)
    return UnitWeights(scale, shift, tuple(kernels), tuple(biases))


def _head(scope: tuple[Any, Any], epsilon: float, *, fold: bool) -> HeadWeights:
    params = scope[0]

    def affine(name: str) -> tuple[Array, Array] | tuple[None, None]:
        return _affine(scope, name, epsilon) if name in params else (None, None)

    overall = params["dense_global"]
    spatial = "conv_local" in params
    bias = params["bias"] if spatial else overall["bias"][0]
    head = HeadWeights(overall["kernel"][:, 0], bias, *affine("norm_global"))
    if spatial:
        scale, shift = affine("norm_local")
        weights = params["conv_local"]["kernel"][..., 0]
        head = head._replace(weights=weights, scale=scale, shift=shift)
    return _folded(head) if fold else head


def _folded(head: HeadWeights) -> HeadWeights:
    """The head with its normalisations in its weights."""
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
