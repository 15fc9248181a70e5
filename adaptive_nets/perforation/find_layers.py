"""Discovery of a network's convolutions and of the layers that read their outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.perforation import compact_rules, equations
from adaptive_nets.perforation.interpreter import EquationObserver, Interpreter, trace
from adaptive_nets.perforation.layers import ConvLayer, Pooling
from adaptive_nets.runtime.errors import UserError

_IN_A_LOOP = "it runs in a loop, a branch or a function with a custom gradient"


def conv_layers(model: Any, variables: Any, image_shape: tuple[int, ...]) -> tuple[ConvLayer, ...]:
    """Lists the convolutions of a network in execution order, by tracing without computing.

    Args:
        model: any image network, a flax.linen or flax.nnx module; see `adapt_network` for one whose
            call has further arguments.
        variables: its variables or their shapes; for an NNX module ``nnx.state(model)``, or None
            for the present ones.
        image_shape: (H, W, C) of one image.

    Raises:
        UserError: the network cannot be called with images alone, or the shape has not three sizes.
    """
    if np.ndim(image_shape) != 1 or len(image_shape) != 3:
        raise UserError(f"image_shape is {image_shape!r}; expected (H, W, C)")
    traced = trace(
        model, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), train=False
    )
    survey = _Survey()
    jax.eval_shape(Interpreter(traced, {}, watcher=survey).run, list(traced.arguments))
    return survey.layers()


class _Survey(EquationObserver):
    """Observer that records convolutions in execution order and the readers of their outputs.

    The origins of a value are the convolutions from which it is computed position by position.
    """

    def __init__(self) -> None:
        self._found: list[ConvLayer] = []
        self._readers: dict[str, set[Pooling | None]] = {}
        self._poolings: list[int] = []
        self._origins: dict[int, frozenset[str]] = {}
        self._tiles: dict[int, tuple[int, int]] = {}
        # Value -> convolution; the value would be compact if that convolution were perforated.
        self._compact: dict[int, str] = {}
        # Values that are constant over positions.
        self._constant: set[int] = set()
        # Values are keyed by id(), which is unique only while they exist: this keeps them alive.
        self._alive: list[Any] = []

    def layers(self) -> tuple[ConvLayer, ...]:
        """Returns the convolutions found."""
        last_pooling = max(self._poolings, default=0)
        layers = []
        for place, layer in enumerate(self._found, start=1):
            readers = self._readers.get(layer.name, set())
            pooling = next(iter(readers)) if len(readers) == 1 else None
            reason = layer.reason
            if not reason and layer.kernel_size == (1, 1):
                reason = "1x1 convolutions are not perforated by default"
            elif not reason and place > last_pooling:
                reason = "no pooling layer comes later"
            layers.append(
                dataclasses.replace(layer, pooling=pooling, by_default=not reason, reason=reason)
            )
        return tuple(layers)

    def convolution(
        self, name: str, equation: Any, operands: Sequence[Any], output: Any, reason: str
    ) -> None:
        """Records a convolution; one larger than 1x1 also reads its input's origins."""
        layer = _layer(name, equation, reason)
        if equations.is_pointwise(equation):
            layer = dataclasses.replace(layer, follows=self._compact.get(id(operands[0]), ""))
        self._found.append(layer)
        if layer.perforable:
            self._compact[id(output)] = name
        origins = self._origins_of(operands[:1])
        if not equations.is_pointwise(equation):
            self._add_reader(origins, None)
            origins = frozenset()
        self._set_origins(output, origins | {name})

    def equation(self, equation: Any, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Propagates origins through position-wise equations and records other readers."""
        self._alive.extend(outputs)
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            return
        self._track_compact(equation, operands, outputs[0])
        origins = self._origins_of(operands)
        shapes = [jnp.shape(operand) for operand in operands]
        if name in equations.WINDOWS and len(shapes[0]) == 4:
            window, strides, padding = (
                tuple(params[key]) for key in ("window_dimensions", "window_strides", "padding")
            )
            if window[1:3] != (1, 1):
                self._pool(origins, Pooling(window[1:3], strides[1:3], tuple(padding[1:3])))
                return
        elif name.startswith("reduce_") and len(shapes[0]) == 4 and {1, 2} <= set(params["axes"]):
            self._pool(origins, Pooling(shapes[0][1:3], (1, 1), ((0, 0), (0, 0))))
            return
        elif name == "reshape" and _tiled(shapes[0], outputs[0].shape):
            self._tiles[id(outputs[0])] = outputs[0].shape[2], outputs[0].shape[4]
        elif name.startswith("reduce_") and id(operands[0]) in self._tiles:
            window = self._tiles[id(operands[0])]
            self._pool(origins, Pooling(window, window, ((0, 0), (0, 0))))
            return
        elif name not in equations.ELEMENTWISE and name != "concatenate":
            self._add_reader(origins, None)
            return
        self._set_origins(outputs[0], origins)

    def _track_compact(self, equation: Any, operands: Sequence[Any], output: Any) -> None:
        """Records whether the output would be compact if its origin were perforated."""
        name, params = equation.primitive.name, equation.params
        broadcast = name == "broadcast_in_dim" and output.ndim == 4
        if broadcast and compact_rules.unbroadcast(equation, operands[0]) is not None:
            self._constant.add(id(output))
        maps = {
            self._compact.get(id(value), "")
            for value in operands
            if jnp.ndim(value) == 4
            and value.shape[1:3] != (1, 1)
            and id(value) not in self._constant
        }
        if name in equations.WINDOWS:
            pointwise = params["window_dimensions"][:3] == params["window_strides"][:3] == (1, 1, 1)
        else:
            pointwise = name in equations.ELEMENTWISE or (
                name == "concatenate" and params["dimension"] == 3
            )
        if pointwise and len(maps) == 1 and (origin := maps.pop()):
            self._compact[id(output)] = origin

    def loop(self, equation: Any) -> None:
        """Records the convolutions of a loop, which cannot be perforated."""
        times = equation.params.get("length", 1)
        known = {layer.name for layer in self._found}
        for inside in equations.looped_convolutions(equation):
            stack = f"{equation.source_info.name_stack}/{inside.source_info.name_stack}"
            parts = [part for part in stack.split("/")[1:] if part and "." not in part]
            name = stem = "/".join(parts) or "conv"
            number = 1
            while name in known:
                number += 1
                name = f"{stem}#{number}"
            known.add(name)
            layer = _layer(name, inside, _IN_A_LOOP)
            self._found.append(dataclasses.replace(layer, macs=times * layer.macs))

    def _origins_of(self, operands: Sequence[Any]) -> frozenset[str]:
        return frozenset().union(*(self._origins.get(id(value), ()) for value in operands))

    def _set_origins(self, value: Any, origins: frozenset[str]) -> None:
        if origins:
            self._origins[id(value)] = origins

    def _pool(self, origins: frozenset[str], pooling: Pooling) -> None:
        self._poolings.append(len(self._found))
        self._add_reader(origins, pooling)

    def _add_reader(self, origins: frozenset[str], reader: Pooling | None) -> None:
        for name in origins:
            self._readers.setdefault(name, set()).add(reader)


def _tiled(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Checks whether a reshape divides a map into windows, [N, H / h, h, W / w, w, C]."""
    return (
        len(before) == 4
        and len(after) == 6
        and before[1:3] == (after[1] * after[2], after[3] * after[4])
    )


def _layer(name: str, equation: Any, reason: str) -> ConvLayer:
    """Describes a convolution; `reason` is empty if the convolution can be perforated."""
    x, kernel = (atom.aval.shape for atom in equation.invars)
    output = equation.outvars[0].aval.shape
    params = equation.params
    spec = params["dimension_numbers"]
    features = kernel[spec.rhs_spec[0]]

    def sizes(shape, axes) -> Any:
        return tuple(shape[axis] for axis in axes[2:])

    return ConvLayer(
        name=name,
        input_size=sizes(x, spec.lhs_spec),
        output_size=sizes(output, spec.out_spec),
        kernel_size=sizes(kernel, spec.rhs_spec),
        strides=tuple(params["window_strides"]),  # pyright: ignore[reportArgumentType]
        groups=params["feature_group_count"],
        channels=x[spec.lhs_spec[1]],
        outputs=features,
        macs=math.prod(output) // output[spec.out_spec[0]] * math.prod(kernel) // features,
        pooling=None,
        perforable=not reason,
        by_default=False,
        reason=reason,
    )
