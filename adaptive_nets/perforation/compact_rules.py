"""Evaluation rules for jaxpr equations with compact operands: maps stored at kept positions only.

Each rule takes an equation and its operands and returns the outputs, or None if the equation needs
filled maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adaptive_nets.perforation import equations
from kernels.perforated_conv import CompactTensor, max_pool, min_pool, sum_pool

_POOLS: dict[str, Any] = {"max": max_pool, "min": min_pool, "sum": sum_pool}


@dataclasses.dataclass(frozen=True, eq=False)
class Tiles:
    """Compact map reshaped to non-overlapping windows, the operand of a pooling reduction.

    Attributes:
        source: compact map.
        window: (height, width).
        shape: shape of the reshaped array, [N, H / h, h, W / w, w, C].
    """

    source: CompactTensor
    window: tuple[int, int]
    shape: tuple[int, ...]

    def filled(self) -> Array:
        """Fills the map and reshapes it."""
        return self.source.filled().reshape(self.shape)


def _row(values: Float[Array, "N P C"]) -> Float[Array, "N 1 P C"]:
    """Reshapes kept positions to a map of one row, so that four-axis equations apply."""
    return values[:, None]


def apply(equation: Any, operands: Sequence[Any]) -> list[Any] | None:
    """Evaluates an equation with compact operands.

    Args:
        equation: an equation without an inner jaxpr.
        operands: arrays, `CompactTensor`s and `Tiles`, at least one of them compact.

    Returns:
        Outputs of the equation, or None if it needs filled operands.
    """
    name = equation.primitive.name
    if isinstance(operands[0], Tiles):
        return _reduce_tiles(equation, operands[0])
    maps = [operand for operand in operands if isinstance(operand, CompactTensor)]
    if len(maps) < len([o for o in operands if isinstance(o, CompactTensor | Tiles)]):
        return None
    if any(other.plan != maps[0].plan for other in maps[1:]):
        return None
    if name in equations.ELEMENTWISE:
        return _elementwise(equation, operands, maps[0])
    if name == "concatenate":
        return _concatenate(equation, operands, maps)
    if not isinstance(operands[0], CompactTensor) or len(maps) > 1:
        return None
    source = operands[0]
    if name in equations.WINDOWS:
        return _windows(equation, source)
    if name in ("reduce_sum", "reduce_max", "reduce_min"):
        return _reduce(equation, source)
    if name == "reshape":
        return _reshape(equation, source)
    if name == "conv_general_dilated" and equations.is_pointwise(equation):
        return _on_kept_positions(equation, operands, source)
    return None


def _on_kept_positions(equation: Any, operands: Sequence[Any], source: CompactTensor) -> list[Any]:
    """Evaluates the equation on the values at kept positions; the output is compact too."""
    rows = [_row(o.values) if isinstance(o, CompactTensor) else o for o in operands]
    (result,) = equations.evaluate(equation, rows)
    return [source.replace(result[:, 0])]


def _elementwise(equation: Any, operands: Sequence[Any], source: CompactTensor) -> list[Any] | None:
    """Applies an elementwise function if operands that are not compact are constant over positions.

    Such operands are scalars or have one value per channel or image.
    """
    output = equation.outvars[0].aval.shape
    if output[:3] != source.shape[:3]:
        return None
    kept = (output[0], 1, source.plan.kept, output[3])
    broadcast: list[Any] = []
    for operand in operands:
        if isinstance(operand, CompactTensor) or not jnp.shape(operand):
            broadcast.append(operand)
        elif jnp.ndim(operand) == 4 and jnp.shape(operand)[1:3] == (1, 1):
            broadcast.append(jnp.broadcast_to(operand, kept))
        else:
            return None
    return _on_kept_positions(equation, broadcast, source)


def _concatenate(equation: Any, operands: Sequence[Any], maps: Sequence[Any]) -> list[Any] | None:
    if equation.params["dimension"] != 3 or len(maps) < len(operands):
        return None
    return _on_kept_positions(equation, operands, maps[0])


def _windows(equation: Any, source: CompactTensor) -> list[Any] | None:
    params = equation.params
    window, strides, padding = (
        params[key] for key in ("window_dimensions", "window_strides", "padding")
    )
    if set(params["base_dilation"]) != {1} or set(params["window_dilation"]) != {1}:
        return None
    if window[:3] == strides[:3] == (1, 1, 1) and not any(map(any, padding[:3])):
        return _on_kept_positions(equation, [source], source)
    if (window[0], window[3], strides[0], strides[3]) != (1, 1, 1, 1):
        return None
    if any(padding[0]) or any(padding[3]) or min(map(min, padding)) < 0:
        return None
    pool = _POOLS[equation.primitive.name.removeprefix("reduce_window_")]
    return [pool(source, window[1:3], strides[1:3], tuple(padding[1:3]))]


def _reduce(equation: Any, source: CompactTensor) -> list[Any] | None:
    """Reduces over all positions; a sum weights each kept value by its number of copies."""
    axes = equation.params["axes"]
    if not {1, 2} <= set(axes):
        return None
    values = _row(source.values)
    if equation.primitive.name == "reduce_sum":
        copies = np.bincount(source.plan.source, minlength=source.plan.kept)
        values = values * jnp.asarray(copies, values.dtype).reshape(1, 1, -1, 1)
    return equations.evaluate(equation, [values])


def _reshape(equation: Any, source: CompactTensor) -> list[Any] | None:
    shape = tuple(equation.params["new_sizes"])
    if equation.params["dimensions"] is not None:
        return None
    if shape == source.shape:
        return [source]
    n, height, width, channels = source.shape
    if len(shape) != 6 or (shape[0], shape[5]) != (n, channels):
        return None
    if shape[1] * shape[2] != height or shape[3] * shape[4] != width:
        return None
    return [Tiles(source, (shape[2], shape[4]), shape)]


def _reduce_tiles(equation: Any, tiles: Tiles) -> list[Any] | None:
    name = equation.primitive.name
    if name in ("reduce_max", "reduce_min", "reduce_sum") and equation.params["axes"] == (2, 4):
        return [_POOLS[name.removeprefix("reduce_")](tiles.source, tiles.window)]
    if name == "convert_element_type":
        values = equations.evaluate(equation, [tiles.source.values])[0]
        return [dataclasses.replace(tiles, source=tiles.source.replace(values))]
    return None


def unbroadcast(equation: Any, operand: Any) -> Array | None:
    """Reshapes the operand of a broadcast over positions to four axes with one position.

    Args:
        equation: a `broadcast_in_dim` with four output axes.
        operand: its operand.

    Returns:
        Array [N or 1, 1, 1, C or 1], or None if the operand varies over positions.
    """
    target = equation.params["broadcast_dimensions"]
    shape = jnp.shape(operand)
    if any(axis in (1, 2) and shape[place] > 1 for place, axis in enumerate(target)):
        return None
    sizes = [1, 1, 1, 1]
    for place, axis in enumerate(target):
        sizes[axis] = shape[place]
    return jnp.reshape(operand, sizes)


def filled(value: Any) -> jax.Array:
    """Fills a compact value; returns any other value unchanged."""
    return value.filled() if isinstance(value, CompactTensor | Tiles) else value
