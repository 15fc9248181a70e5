"""Which positions of which convolutions of a network are computed: its perforation plan."""

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
    """The mask of one layer and the map by which it is filled; both are fixed from then on.

    Attributes:
        mask: bool[H', W'], True where the output is computed.
        nearest: int32[H', W'], flat index of the kept position that each position copies.
        kind: of the mask, one of `Kind`, or another word for one made elsewhere.
        keep: share of the positions that is kept, the mask's mean.
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
                f"int{list(self.mask.shape)}, as the mask"
            )
        low, high = self.nearest.min(initial=0), self.nearest.max(initial=0)
        if low < 0 or high >= self.mask.size or not self.mask.flat[self.nearest].all():
            raise UserError("nearest points to positions that the mask does not keep")

    @property
    def rate(self) -> float:
        """The paper's perforation rate r: the share of positions that is not computed."""
        return 1.0 - self.keep

    @property
    def kept(self) -> int:
        """Number of computed positions N = |I|."""
        return int(self.mask.sum())


def layer_mask(key: jax.Array, mask: Bool[np.ndarray, "H W"], kind: str = "given") -> LayerMask:
    """A mask with its nearest map, ties broken by `key`."""
    return LayerMask(mask, nearest_kept(key, mask), kind, float(mask.mean()))


@dataclasses.dataclass(frozen=True, eq=False)
class PerforationPlan:
    """What of a network is computed.

    Attributes:
        fingerprint: of the layers of the network that it is for.
        layers: name of a convolution -> its mask; convolutions that are absent are computed whole.
        model: name of the network, for messages and pictures.
    """

    fingerprint: str
    layers: Mapping[str, LayerMask]
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the contents; equal plans have equal ones."""
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
        """The plan with other masks of some layers, as keywords or ``**{name: mask}``."""
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

    A layer's mask depends on the key, its place in the network, its rate and its kind alone.

    Args:
        key: a PRNG key.
        layers: all convolutions of the network, from `conv_layers`.
        rates: name -> perforation rate r in [0, 1), the share that is NOT computed; layers without
            one are computed whole.
        kind: of the masks, for all or by name.
        impacts: name -> float[H', W'] from `average_impact`, for kind "impact".
        model: name of the network.

    Returns:
        The plan. A rate of 0 gives a mask that keeps everything, which leaves the layer as it is.

    Raises:
        UserError: a rate outside [0, 1), one that leaves nothing, an unknown layer or kind, a layer
            that cannot be perforated, a pooling mask where no pooling layer follows, no impact.
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
    """Keep fraction k = 1 − r of a perforation rate, 0.1 and not 0.0999… for 0.9.

    Raises:
        UserError: the rate is no number in [0, 1).
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
    """Whether a plan is for the network that has these layers.

    Raises:
        UserError: it names a layer that the network has not or that cannot be perforated, has a
            mask of another size, or was made for another network.
    """
    known = {layer.name: layer for layer in layers}
    for name, mask in plan.layers.items():
        layer = known[_known(name, known)]
        if mask.mask.shape != layer.output_size:
            raise UserError(
                f"mask of {name} has size {_by(mask.mask.shape)}; expected "
                f"{_by(layer.output_size)}, the layer's output"
            )
        _check_perforable(layer)
    if plan.fingerprint != fingerprint(layers):
        raise UserError(
            f"the plan is for another network{f', {plan.model}' if plan.model else ''}: its "
            f"fingerprint is {plan.fingerprint}; expected {fingerprint(layers)}"
        )


def _draw(key, layer: ConvLayer, keep: float, kind: str, impacts: Mapping[str, Any]) -> LayerMask:
    if kind not in get_args(Kind):
        raise UserError(f"kind of {layer.name} is {kind!r}; expected {', '.join(get_args(Kind))}")
    if math.floor(keep * layer.positions) < 1:
        raise UserError(
            f"rate of {layer.name} is {1 - keep:.6g}, which leaves none of "
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
                f"kind of {layer.name} is 'pooling', but its next spatial layer is no pooling "
                "layer; expected uniform, grid, regular or impact"
            )
        mask = pooling_structure_mask(
            key, layer.output_size, keep, **dataclasses.asdict(layer.pooling)
        )
    else:
        if layer.name not in impacts:
            raise UserError(f"impacts has none of {layer.name}; expected one from average_impact")
        if np.shape(impacts[layer.name]) != layer.output_size:
            raise UserError(
                f"impact of {layer.name} has shape {np.shape(impacts[layer.name])}; expected "
                f"{layer.output_size}, the layer's output"
            )
        mask = impact_mask(impacts[layer.name], keep)
    return layer_mask(key, mask, kind)


def _known(name: str, known: Mapping[str, Any]) -> str:
    if name not in known:
        raise UserError(f"the network has no convolution {name!r}; {did_you_mean(name, known)}")
    return name


def _check_perforable(layer: ConvLayer) -> None:
    if not layer.perforable:
        raise UserError(f"layer {layer.name} cannot be perforated: {layer.reason}")


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
