"""Activations of a network, found while it is traced: how many bytes all of them and at one time.

Counted are the outputs of layers, as the authors' framework keeps them: the input, convolutions and
dense layers with their biases, each ReLU, normalisation and pooling, sums, concatenations. Steps
within a layer are not, nor is what depends on parameters alone. A map that is written out because
something needs every position counts beside its compact form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.perforation import equations
from adaptive_nets.perforation.compact_rules import Tiles
from adaptive_nets.perforation.interpreter import EquationObserver, Interpreter, trace
from adaptive_nets.perforation.network import PerforatedModel
from adaptive_nets.perforation.plan import PerforationPlan
from kernels.perforated_conv import CompactTensor

_VIEWS = frozenset(("reshape", "squeeze", "expand_dims"))
# Steps of a mean, of a normalisation; the layer's output is the last of them.
_STEPS = frozenset(("reduce_sum", "reduce_window_sum", "broadcast_in_dim"))
_PRODUCTS = frozenset(("conv_general_dilated", "dot_general"))


def measure_activations(
    model: nn.Module,
    variables: Any,
    image_shape: tuple[int, int, int],
    plan: PerforationPlan | None,
) -> tuple[int, int]:
    """Bytes of all activations of one image, and the most of them that are needed at a time."""
    masks = {}
    if plan is not None:
        perforated = PerforatedModel(model, plan)
        perforated.check(variables, image_shape)
        masks = perforated.masks
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced = trace(model, variables, x, train=False)
    ledger = _Ledger()
    interpreter = Interpreter(traced, masks, watcher=ledger)
    place = len(jax.tree.leaves(variables))

    def run(arguments):
        ledger.begin(arguments[place])
        outputs = interpreter.run(arguments)
        ledger.end(jax.tree.leaves(outputs))
        return outputs

    jax.eval_shape(run, list(traced.arguments))
    return ledger.total(), ledger.peak()


@dataclasses.dataclass
class _Value:
    """Something that depends on the input.

    Attributes:
        bytes: its size.
        step: whether it is a step within a layer, unless the layer ends with it.
        product: whether it is a convolution or product, to which a bias may be added.
        made: when.
        sources: of a step, what it was computed from.
        ends: whether it is kept: a layer's output.
        last: when it was last needed.
    """

    bytes: int
    step: bool
    product: bool
    made: int
    sources: list[_Value]
    ends: bool
    last: int = 0

    def extend_lifetime(self, time: int) -> None:
        """It, or what a step within a layer was computed from, is needed at a time."""
        self.last = max(self.last, time)
        if not self.ends:
            for source in self.sources:
                source.extend_lifetime(time)


class _Ledger(EquationObserver):
    """Values in the order in which they are made."""

    def __init__(self) -> None:
        self._values: dict[int, _Value] = {}
        self._order: list[_Value] = []
        self._reads: list[tuple[int, _Value]] = []
        self._alive: list[Any] = []

    def begin(self, image: Any) -> None:
        """The input."""
        self._add(image, [], step=False)

    def end(self, outputs: Sequence[Any]) -> None:
        """What is returned is a layer's output, and needed to the end."""
        for value in self._known(outputs):
            value.ends = True
            self._reads.append((len(self._order), value))
        for time, value in self._reads:
            value.extend_lifetime(time)

    def fill(self, source: Any, output: Any) -> None:
        """A map that is written out."""
        sources = self._known([source])
        self._read(sources, ends=True)
        self._add(output, sources, step=False)

    def equation(self, equation: Any, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Adds what it gives, unless that does not depend on the input."""
        sources = self._known(operands)
        if not sources:
            return
        name = equation.primitive.name
        if name in _VIEWS:
            self._values[id(outputs[0])] = sources[0]
            self._alive.append(outputs[0])
            return
        step = name in equations.ELEMENTWISE or name in _STEPS
        if name == "max" and _zero(equation):
            step = False
        elif name == "add" and len(sources) == 1 and sources[0].product:
            # A bias belongs to its layer.
            step, sources[0].ends = False, False
        ends = not step and not (name == "add" and sources[0].product)
        self._read(sources, ends=ends)
        for output in outputs:
            self._add(output, sources, step=step, product=name in _PRODUCTS)

    def total(self) -> int:
        """Bytes of all layers' outputs."""
        return sum(value.bytes for value in self._order if value.ends)

    def peak(self) -> int:
        """The most bytes at one time."""
        kept = [value for value in self._order if value.ends]
        return max(
            sum(v.bytes for v in kept if v.made <= value.made <= max(v.last, v.made))
            for value in kept
        )

    def _known(self, operands: Sequence[Any]) -> list[_Value]:
        return [self._values[id(value)] for value in operands if id(value) in self._values]

    def _read(self, sources: Sequence[_Value], *, ends: bool) -> None:
        for source in sources:
            source.ends = source.ends or (ends and source.step)
            self._reads.append((len(self._order), source))

    def _add(
        self, output: Any, sources: list[_Value], *, step: bool, product: bool = False
    ) -> None:
        value = _Value(_bytes(output), step, product, len(self._order), sources, not step)
        self._values[id(output)] = value
        self._order.append(value)
        self._alive.append(output)


def _zero(equation: Any) -> bool:
    literals = [atom for atom in equation.invars if not equations.is_variable(atom)]
    return len(literals) == 1 and float(literals[0].val) == 0


def _bytes(value: Any) -> int:
    if isinstance(value, Tiles):
        value = value.source
    if isinstance(value, CompactTensor):
        value = value.values
    return value.size * value.dtype.itemsize
