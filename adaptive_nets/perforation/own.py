"""Perforation of any network in one call: shapes, masks and impacts are found from images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.models import logits_of
from adaptive_nets.perforation.adapters import NNXNetwork, adapt_network, canonical_variables
from adaptive_nets.perforation.cost import plan_macs
from adaptive_nets.perforation.find_layers import conv_layers
from adaptive_nets.perforation.impact import average_impact
from adaptive_nets.perforation.interpreter import Interpolation
from adaptive_nets.perforation.layers import ConvLayer, fingerprint
from adaptive_nets.perforation.network import PerforatedModel, perforate_by_plan
from adaptive_nets.perforation.plan import (
    Kind,
    LayerMask,
    PerforationPlan,
    layer_mask,
    make_plan,
)
from adaptive_nets.runtime.errors import UserError, did_you_mean

Keep = float | LayerMask | Bool[np.ndarray, "H W"]
"""Fraction of positions kept, or a mask of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class PerforatedNetwork(PerforatedModel):
    """Perforated network of a user, called like the network: ``network(images)``.

    Use `apply` with other variables, for example to fine-tune.

    Attributes:
        variables: variables of the network at the time of `perforate`.
        layers: convolutions of the network; `ConvLayer.perforable` and ``reason`` say which can be
            perforated.
    """

    variables: Any = None
    layers: tuple[ConvLayer, ...] = ()

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False, **options: Any) -> Any:
        """Applies the perforated network with its own variables; see `apply`."""
        return self.apply(self.variables, x, train, **options)

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of the convolutions for one image."""
        return plan_macs(self.layers, self.plan)

    @property
    def unperforated_macs(self) -> int:
        """Returns the multiply-accumulates of the network's convolutions without the plan."""
        return plan_macs(self.layers)


def perforate(
    model: Any,
    variables: Any,
    images: Float[Array, "M H W C"] | PerforationPlan | None = None,
    plan: PerforationPlan | Mapping[str, Keep] | float | None = None,
    *,
    kind: Kind = "grid",
    labels: Int[Array, "M"] | None = None,
    key: jax.Array | None = None,
    image_shape: tuple[int, int, int] | None = None,
    interpolation: Interpolation = "implicit",
    implementation: Any = None,
) -> PerforatedModel:
    """Perforates a network that computes convolutions at some positions only; weights are kept.

        network = perforate(model, variables, images, 0.5)
        logits = network(images)

    A convolution can be perforated if it is two-dimensional with channels last, undilated, of
    floating-point values, with weights computed from the network's variables, and runs exactly once
    outside of loops, branches and functions with a custom derivative. Every other convolution is
    listed by `conv_layers` with the reason, and refused in a plan.

    Args:
        model: any image network, a flax.linen or flax.nnx module; see `adapt_network` for one whose
            call has further arguments.
        variables: its variables; for an NNX module ``nnx.state(model)`` or None.
        images: float[M, H, W, C], inputs of the network; their values matter for kind "impact"
            only. A `PerforationPlan` may stand here instead, ``perforate(model, variables, plan)``;
            then the result has `apply` alone.
        plan: name of a convolution -> largest fraction of positions to keep, in (0, 1], or
            bool[H', W'], True where the output is computed; names are those of `conv_layers`. A
            number is the fraction for every candidate: every convolution that the paper would
            perforate, not 1x1 and with a pooling layer after it, or else every one that can be. Or
            a plan of `make_plan`, `GreedySearch` or `load_plan`.
        kind: kind of the masks for fractions: "grid", "uniform", "regular", "pooling" or "impact".
            An impact mask keeps the positions that change the loss of `images` the most. Grids keep
            whole rows and columns, often fewer positions than the fraction.
        labels: int[M], classes of the images for kind "impact"; None for the network's own
            predictions.
        key: PRNG key of masks and of ties between nearest positions; None for a fixed one.
        image_shape: (H, W, C) if there are no images.
        interpolation: "implicit", or "explicit" to fill the output of every perforated layer.
        implementation: implementation of `kernels.perforated_conv`; None chooses, a name requires
            that one.

    Returns:
        A `PerforatedNetwork`, called like the network, with `apply`, `plan`, `macs` and
        `unperforated_macs`. It can be compiled and differentiated.

    Raises:
        UserError: a layer does not exist or cannot be perforated, a fraction is outside (0, 1] or
            keeps no position, a mask has another size or keeps nothing, or the plan is for another
            network.

    Example:
        >>> from adaptive_nets.models import create_model
        >>> model, images = create_model("lenet5_caffe"), np.ones((2, 28, 28, 1))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
        >>> network = perforate(model, variables, images, {"conv1": 0.5}, kind="uniform")
        >>> round(network.macs / network.unperforated_macs, 2)
        0.92
    """
    options = {"interpolation": interpolation, "implementation": implementation}
    if isinstance(images, PerforationPlan) and plan is None:
        images, plan = None, images
    if images is None and isinstance(plan, PerforationPlan):
        return perforate_by_plan(model, variables, plan, image_shape=image_shape, **options)
    if plan is None:
        raise UserError(
            "plan is None; expected a PerforationPlan, a fraction of positions kept, or a mapping "
            "from layers to fractions or masks"
        )
    if images is not None:
        shape = getattr(images, "shape", ())
        if len(shape) != 4:
            raise UserError(f"images have shape {shape}; expected [M, H, W, C]")
        _, height, width, channels = shape
        image_shape = height, width, channels
    if image_shape is None:
        raise UserError("images is None; expected images [M, H, W, C], or image_shape=(H, W, C)")
    if variables is None:
        network = adapt_network(model)
        if not isinstance(network, NNXNetwork):
            raise UserError("variables is None; expected those of the network, from init")
        variables = network.init(None, None)  # the present state
    layers = conv_layers(model, variables, image_shape)
    if not isinstance(plan, PerforationPlan):
        key = jax.random.key(0) if key is None else key
        plan = _plan(model, variables, layers, plan, kind, images, labels, key)
    checked = perforate_by_plan(model, variables, plan, image_shape=image_shape, **options)
    fields = {field.name: getattr(checked, field.name) for field in dataclasses.fields(checked)}
    return PerforatedNetwork(**fields, variables=variables, layers=layers)


def _plan(
    model: Any,
    variables: Any,
    layers: Sequence[ConvLayer],
    plan: Any,
    kind: Kind,
    images: Any,
    labels: Any,
    key: jax.Array,
) -> PerforationPlan:
    """Makes a plan of fractions and masks."""
    known = {layer.name: layer for layer in layers}
    chosen: Mapping[Any, Any] = (
        plan if isinstance(plan, Mapping) else dict.fromkeys(_candidates(layers), plan)
    )
    rates, masks = {}, {}
    for i, (name, value) in enumerate(chosen.items()):
        if name not in known:
            raise UserError(
                f"the network has no convolution {name!r}; {did_you_mean(str(name), known)}"
            )
        layer = known[name]
        if isinstance(value, LayerMask):
            masks[name] = value
        elif np.ndim(value) == 2:
            masks[name] = layer_mask(jax.random.fold_in(key, i), _mask(value, layer))
        else:
            rates[name] = 1 - _keep(value, layer)
    impacts = None
    if kind == "impact" and rates:
        impacts = average_impact(model, variables, *_labelled(model, variables, images, labels))
    drawn = make_plan(key, layers, rates, kind, impacts)
    return PerforationPlan(fingerprint(layers), {**drawn.layers, **masks})


def _candidates(layers: Sequence[ConvLayer]) -> list[str]:
    """Returns the convolutions that the paper would perforate, or else those that can be."""
    able = [layer for layer in layers if layer.perforable]
    found = [layer for layer in able if layer.by_default] or able
    if not found:
        reasons = "; ".join(f"{layer.name}: {layer.reason}" for layer in layers)
        raise UserError(f"no convolution of the network can be perforated: {reasons or 'none'}")
    return [layer.name for layer in found]


def _keep(value: Any, layer: ConvLayer) -> float:
    try:
        keep = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        keep = math.nan
    height, width = layer.output_size
    if not 0 < keep <= 1:
        raise UserError(
            f"plan of {layer.name} is {value!r}; expected a fraction of positions kept in (0, 1], "
            f"or a mask bool[{height}, {width}]"
        )
    if math.floor(keep * layer.positions) < 1:
        raise UserError(
            f"plan of {layer.name} is {value!r}, which keeps none of {height}x{width} positions; "
            f"expected at least {1 / layer.positions:.6g}"
        )
    return keep


def _mask(value: Any, layer: ConvLayer) -> np.ndarray:
    mask = np.asarray(value)
    if mask.dtype != np.bool_ or mask.shape != layer.output_size or not mask.any():
        kept = ", which keeps nothing" if mask.dtype == np.bool_ and not mask.any() else ""
        height, width = layer.output_size
        raise UserError(
            f"mask of {layer.name} is {mask.dtype}{list(mask.shape)}{kept}; expected "
            f"bool[{height}, {width}], the size of the layer's output, with a kept position"
        )
    return mask


def _labelled(model: Any, variables: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    """Returns images with labels, by default the predictions of the network."""
    if images is None or not len(images):
        raise UserError("kind is 'impact', but there are no images; expected images [M, H, W, C]")
    if labels is None:
        network = adapt_network(model)
        values = canonical_variables(network, variables)
        logits = logits_of(jax.jit(lambda v, x: network.apply(v, x))(values, jnp.asarray(images)))
        if np.ndim(logits) != 2:
            raise UserError(
                f"the network returns shape {np.shape(logits)}; kind 'impact' expects logits [M, K]"
            )
        labels = np.argmax(logits, axis=-1)
    return images, labels
