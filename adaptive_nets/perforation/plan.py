"""Perforation plan of a network: masks and nearest-kept maps of its perforated convolutions."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from adaptive_nets.perforation.layers import ConvLayer, fingerprint
from adaptive_nets.perforation.masks import (
    grid_mask,
    impact_mask,
    pooling_structure_mask,
    regular_mask,
    uniform_mask,
)
from adaptive_nets.perforation.nearest import nearest_kept
from adaptive_nets.runtime.errors import UserError, did_you_mean

Kind = Literal["uniform", "grid", "regular", "pooling", "impact"]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerMask:
    """Fixed mask of a layer and its nearest-kept map.

    Attributes:
        mask: bool[H', W'], True where the output is computed.
        nearest: int32[H', W'], flat index of the kept position that each position copies.
        kind: kind of mask, one of `Kind`, or another label for a mask from elsewhere.
        keep: fraction of positions kept, the mask's mean.
    """

    mask: Bool[np.ndarray, "H W"]
    nearest: Int[np.ndarray, "H W"]
    kind: str
    keep: float

    def __post_init__(self) -> None:
        if getattr(self.mask, "ndim", 0) != 2 or self.mask.dtype != np.bool_:
            raise UserError(
                f"mask is {type(self.mask).__name__} of shape {np.shape(self.mask)}; expected "
                "bool[H', W']"
            )
        if self.nearest.shape != self.mask.shape or self.nearest.dtype.kind not in "iu":
            raise UserError(
                f"nearest is {self.nearest.dtype}{list(self.nearest.shape)}; expected "
                f"int{list(self.mask.shape)}, the shape of the mask"
            )
        low, high = self.nearest.min(initial=0), self.nearest.max(initial=0)
        if low < 0 or high >= self.mask.size or not self.mask.flat[self.nearest].all():
            raise UserError(
                "nearest points to positions that the mask does not keep; expected flat indices "
                "of kept positions, as from nearest_kept"
            )

    @property
    def rate(self) -> float:
        """Returns the paper's perforation rate r, the fraction of positions not computed."""
        return 1.0 - self.keep

    @property
    def kept(self) -> int:
        """Returns the number of computed positions N = |I|."""
        return int(self.mask.sum())


def layer_mask(key: jax.Array, mask: Bool[np.ndarray, "H W"], kind: str = "given") -> LayerMask:
    """Creates a `LayerMask` from a mask; `key` breaks the ties of the nearest-kept map."""
    return LayerMask(mask, nearest_kept(key, mask), kind, float(mask.mean()))


@dataclasses.dataclass(frozen=True, eq=False)
class PerforationPlan:
    """Masks of the perforated convolutions of a network.

    Attributes:
        fingerprint: fingerprint of the network's layers.
        layers: name of a convolution -> its mask; absent convolutions are not perforated.
        model: name of the network, for messages and figures.
    """

    fingerprint: str
    layers: Mapping[str, LayerMask]
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    @property
    def digest(self) -> str:
        """Returns 16 hexadecimal digits of a hash of the contents."""
        sums = hashlib.sha256(self.fingerprint.encode())
        for name, layer in sorted(self.layers.items()):
            sums.update(f"{name} {layer.kind} {layer.mask.shape}\n".encode())
            sums.update(np.packbits(layer.mask).tobytes())
            sums.update(layer.nearest.astype("<i4").tobytes())
        return sums.hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerforationPlan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def replace(self, **layers: LayerMask) -> PerforationPlan:
        """Returns a plan with the masks of some layers replaced, given as ``**{name: mask}``."""
        return dataclasses.replace(self, layers={**self.layers, **layers})


def make_plan(
    key: jax.Array,
    layers: Sequence[ConvLayer],
    rates: Mapping[str, float],
    kind: Kind | Mapping[str, Kind] = "grid",
    impacts: Mapping[str, Float[np.ndarray, "H W"]] | None = None,
    *,
    model: str = "",
) -> PerforationPlan:
    """Draws a mask for every layer that has a rate.

    A layer's mask depends only on the key, the layer's index, its rate and its kind.

    Args:
        key: PRNG key.
        layers: all convolutions of the network, from `conv_layers`.
        rates: name -> perforation rate r in [0, 1), the fraction NOT computed; layers without a
            rate are not perforated.
        kind: kind of mask, for all layers or by name.
        impacts: name -> float[H', W'] from `average_impact`, for kind "impact".
        model: name of the network.

    Returns:
        The plan. A rate of 0 gives a mask that keeps every position.

    Raises:
        UserError: a rate is outside [0, 1) or keeps no position, a layer or kind is unknown, a
            layer cannot be perforated, no pooling layer follows a pooling mask, or an impact is
            missing.
    """
    kinds = {name: kind if isinstance(kind, str) else kind.get(name, "grid") for name in rates}
    places = {layer.name: index for index, layer in enumerate(layers)}
    masks = {}
    for name, rate in rates.items():
        layer = layers[places[_known(name, places)]]
        _check_perforable(layer)
        keep = keep_from_rate(rate, layer=name)
        masks[name] = _draw(
            jax.random.fold_in(key, places[name]), layer, keep, kinds[name], impacts or {}
        )
    return PerforationPlan(fingerprint(layers), masks, model)


def keep_from_rate(rate: Any, *, layer: str) -> float:
    """Computes the keep fraction k = 1 − r without rounding error: 0.1, not 0.0999…, for 0.9.

    Raises:
        UserError: the rate is not a number in [0, 1).
    """
    try:
        value = float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < 1:
        raise UserError(f"rate of {layer} is {rate!r}; expected a perforation rate in [0, 1)")
    keep = float(1 - Fraction(value).limit_denominator(10**6))
    return keep if keep > 0 else 1 - value


def check_plan(plan: PerforationPlan, layers: Sequence[ConvLayer]) -> None:
    """Checks that a plan is for the network with the given layers.

    Raises:
        UserError: a layer does not exist or cannot be perforated, a mask has the wrong size, or the
            plan is for another network.
    """
    known = {layer.name: layer for layer in layers}
    for name, mask in plan.layers.items():
        layer = known[_known(name, known)]
        if mask.mask.shape != layer.output_size:
            raise UserError(
                f"mask of {name} has size {_by(mask.mask.shape)}; expected "
                f"{_by(layer.output_size)}, the size of the layer's output"
            )
        _check_perforable(layer)
    if plan.fingerprint != fingerprint(layers):
        raise UserError(
            f"the plan is for another network{f', {plan.model}' if plan.model else ''}: its "
            f"fingerprint is {plan.fingerprint}; expected {fingerprint(layers)}, from make_plan "
            "with the layers of this network"
        )


def _draw(key, layer: ConvLayer, keep: float, kind: str, impacts: Mapping[str, Any]) -> LayerMask:
    if kind not in get_args(Kind):
        raise UserError(
            f"kind of {layer.name} is {kind!r}; expected one of {', '.join(get_args(Kind))}"
        )
    if math.floor(keep * layer.positions) < 1:
        raise UserError(
            f"rate of {layer.name} is {1 - keep:.6g}, which keeps none of "
            f"{_by(layer.output_size)} positions; expected at most {1 - 1 / layer.positions:.6g}"
        )
    if kind == "uniform":
        mask = uniform_mask(key, layer.output_size, keep)
    elif kind == "grid":
        mask = grid_mask(key, layer.output_size, keep)
    elif kind == "regular":
        mask = regular_mask(key, layer.output_size, keep)
    elif kind == "pooling":
        if layer.pooling is None:
            raise UserError(
                f"kind of {layer.name} is 'pooling', but its next spatial layer is not a pooling "
                "layer; expected uniform, grid, regular or impact"
            )
        mask = pooling_structure_mask(
            key, layer.output_size, keep, **dataclasses.asdict(layer.pooling)
        )
    else:
        if layer.name not in impacts:
            raise UserError(
                f"impacts has no entry for {layer.name}; expected float[H', W'] from average_impact"
            )
        if np.shape(impacts[layer.name]) != layer.output_size:
            raise UserError(
                f"impact of {layer.name} has shape {np.shape(impacts[layer.name])}; expected "
                f"{layer.output_size}, the size of the layer's output"
            )
        mask = impact_mask(impacts[layer.name], keep)
    return layer_mask(key, mask, kind)


def _known(name: str, known: Mapping[str, Any]) -> str:
    if name not in known:
        raise UserError(f"the network has no convolution {name!r}; {did_you_mean(name, known)}")
    return name


def _check_perforable(layer: ConvLayer) -> None:
    if not layer.perforable:
        raise UserError(f"layer {layer.name} cannot be perforated: {layer.reason}; leave it out")


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
