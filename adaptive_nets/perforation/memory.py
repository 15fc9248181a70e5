"""Activation memory of a network, total and peak, measured by tracing.

Counted are the layer outputs that the authors' framework stores: the input, convolutions and dense
layers with their biases, each ReLU, normalisation and pooling, sums, concatenations. Intermediate
values within a layer and values that depend on parameters only are not counted. A filled map is
counted in addition to its compact form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from adaptive_nets.perforation import equations
from adaptive_nets.perforation.compact_rules import Tiles
from adaptive_nets.perforation.interpreter import EquationObserver, Interpreter, trace
from adaptive_nets.perforation.network import PerforatedModel
from adaptive_nets.perforation.plan import PerforationPlan
from kernels.perforated_conv import CompactTensor

_VIEWS = frozenset(("reshape", "squeeze", "expand_dims"))
# Intermediate values of means and normalisations; only the last one is the layer's output.
_INTERMEDIATE = frozenset(("reduce_sum", "reduce_window_sum", "broadcast_in_dim"))
_PRODUCTS = frozenset(("conv_general_dilated", "dot_general"))


def measure_activations(
    model: Any,
    variables: Any,
    image_shape: tuple[int, int, int],
    plan: PerforationPlan | None,
) -> tuple[int, int]:
    """Returns total and peak bytes of the activations of one image."""
    masks = {}
    if plan is not None:
        perforated = PerforatedModel(model, plan)
        perforated.check(variables, image_shape)
        masks = perforated.masks
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced = trace(model, variables, x, train=False)
    ledger = _Ledger()
    interpreter = Interpreter(traced, masks, watcher=ledger)
    image_index = traced.paths.index("")

    def run(arguments):
        ledger.begin(arguments[image_index])
        outputs = interpreter.run(arguments)
        ledger.end(jax.tree.leaves(outputs))
        return outputs

    jax.eval_shape(run, list(traced.arguments))
    return ledger.total(), ledger.peak()


@dataclasses.dataclass
class _Value:
    """Value that depends on the input image.

    Attributes:
        bytes: size.
        intermediate: whether it may be an intermediate value within a layer.
        product: whether it is a convolution or matrix product, to which a bias may be added.
        created: time of creation.
        sources: values from which it is computed.
        stored: whether it is a layer's output, which occupies memory.
        last_use: time of the last use.
    """

    bytes: int
    intermediate: bool
    product: bool
    created: int
    sources: list[_Value]
    stored: bool
    last_use: int = 0

    def extend_lifetime(self, time: int) -> None:
        """Extends this value's lifetime, and its sources' if it is not stored, to `time`."""
        self.last_use = max(self.last_use, time)
        if not self.stored:
            for source in self.sources:
                source.extend_lifetime(time)


class _Ledger(EquationObserver):
    """Observer that records values in order of creation and their uses."""

    def __init__(self) -> None:
        self._values: dict[int, _Value] = {}
        self._order: list[_Value] = []
        self._uses: list[tuple[int, _Value]] = []
        # Values are keyed by id(), which is unique only while they exist: this keeps them alive.
        self._alive: list[Any] = []

    def begin(self, image: Any) -> None:
        """Records the input image."""
        self._add(image, [], intermediate=False)

    def end(self, outputs: Sequence[Any]) -> None:
        """Records the network's outputs, which are live until the end, and computes lifetimes."""
        for value in self._known(outputs):
            value.stored = True
            self._uses.append((len(self._order), value))
        for time, value in self._uses:
            value.extend_lifetime(time)

    def fill(self, source: Any, output: Any) -> None:
        """Records a filled map."""
        sources = self._known([source])
        self._use(sources, by_stored=True)
        self._add(output, sources, intermediate=False)

    def equation(self, equation: Any, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Records the outputs of an equation if they depend on the input image."""
        sources = self._known(operands)
        if not sources:
            return
        name = equation.primitive.name
        if name in _VIEWS:
            self._values[id(outputs[0])] = sources[0]
            self._alive.append(outputs[0])
            return
        intermediate = name in equations.ELEMENTWISE or name in _INTERMEDIATE
        if name == "max" and _has_literal_zero(equation):
            intermediate = False
        elif name == "add" and len(sources) == 1 and sources[0].product:
            # The sum with the bias is the layer's output, not the product itself.
            intermediate, sources[0].stored = False, False
        by_stored = not intermediate and not (name == "add" and sources[0].product)
        self._use(sources, by_stored=by_stored)
        for output in outputs:
            self._add(output, sources, intermediate=intermediate, product=name in _PRODUCTS)

    def total(self) -> int:
        """Returns the bytes of all stored values."""
        return sum(value.bytes for value in self._order if value.stored)

    def peak(self) -> int:
        """Returns the maximum bytes of simultaneously live stored values."""
        stored = [value for value in self._order if value.stored]
        return max(
            sum(v.bytes for v in stored if v.created <= value.created <= max(v.last_use, v.created))
            for value in stored
        )

    def _known(self, operands: Sequence[Any]) -> list[_Value]:
        return [self._values[id(value)] for value in operands if id(value) in self._values]

    def _use(self, sources: Sequence[_Value], *, by_stored: bool) -> None:
        """Records uses; an intermediate value used by the next layer is a layer's output."""
        for source in sources:
            source.stored = source.stored or (by_stored and source.intermediate)
            self._uses.append((len(self._order), source))

    def _add(
        self, output: Any, sources: list[_Value], *, intermediate: bool, product: bool = False
    ) -> None:
        time = len(self._order)
        value = _Value(_bytes(output), intermediate, product, time, sources, not intermediate)
        self._values[id(output)] = value
        self._order.append(value)
        self._alive.append(output)


def _has_literal_zero(equation: Any) -> bool:
    """Checks whether an operand is the literal 0, as in ReLU."""
    literals = [atom for atom in equation.invars if not equations.is_variable(atom)]
    return len(literals) == 1 and float(literals[0].val) == 0


def _bytes(value: Any) -> int:
    if isinstance(value, Tiles):
        value = value.source
    if isinstance(value, CompactTensor):
        value = value.values
    return value.size * value.dtype.itemsize
