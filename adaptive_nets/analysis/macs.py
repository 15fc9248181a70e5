"""Multiply-accumulates of a network, counted from its jaxpr.

The convention of the papers' code: every kernel tap of every computed position counts, taps that
fall on padding included; biases, normalisation, activations and pooling do not. FLOPs are twice the
MACs.

The counter includes convolutions and matrix products with one operand that depends on the input
and another that depends on the input or on parameters. It excludes kernels that a hypernetwork
generates from parameters alone, once for all images, and products with constants, which are
poolings or resizings. Loop bodies count once per iteration. A network of adaptive depth counts with
all units and halting heads, the maximum cost of an image; `adaptive_nets.models.adaptive.cost`
counts the executed units.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.analysis.parameters import resolve_model
from adaptive_nets.models import logits_of
from adaptive_nets.models.shapes import abstract_variables


def _conv(equation: Any) -> int:
    """Counts a convolution: kernel taps times computed positions."""
    (output,) = equation.outvars
    kernel = equation.invars[1].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(output.aval.shape) * math.prod(kernel) // features


def _dot(equation: Any) -> int:
    (output,) = equation.outvars
    ((contracted, _), _) = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return math.prod(output.aval.shape) * math.prod(shape[axis] for axis in contracted)


_RULES = {"conv_general_dilated": _conv, "dot_general": _dot}


# Scope in the network -> MACs.
_Ledger = dict[str, int]


@dataclasses.dataclass
class _Origins:
    """Values that depend on the network's input, and values that depend on it or on parameters."""

    on_input: set[Any] = dataclasses.field(default_factory=set)
    on_either: set[Any] = dataclasses.field(default_factory=set)

    def add(self, value: Any, other: _Origins, source: Any) -> None:
        """Adds the dependencies of `source` in `other` to those of `value`."""
        if _is_var(source) and source in other.on_input:
            self.on_input.add(value)
        if _is_var(source) and source in other.on_either:
            self.on_either.add(value)

    def size(self) -> int:
        """Returns the number of recorded dependencies."""
        return len(self.on_input) + len(self.on_either)


def _is_var(atom: Any) -> bool:
    return not hasattr(atom, "val")  # a literal has one


def _programs(equation: Any) -> list[tuple[Any, list[Any]]]:
    """Returns the inner programs of an equation, each with the operands of its inputs."""
    operands, params = list(equation.invars), equation.params
    if equation.primitive.name == "cond":
        return [(branch.jaxpr, operands[1:]) for branch in params["branches"]]
    if equation.primitive.name == "while":
        body = params["body_jaxpr"].jaxpr
        return [(body, operands[params["cond_nconsts"] :])]
    for value in params.values():
        program = getattr(value, "jaxpr", value)
        # The combiner of a reduction is also a program, but its inputs are not the operands.
        if hasattr(program, "eqns") and len(program.invars) == len(operands):
            return [(program, operands)]
    return []


def _walk(jaxpr: Any, origins: _Origins, place: str = "") -> _Ledger:
    """Counts the MACs of a program and records the origins of all its values."""
    ledger: _Ledger = {}
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        where = f"{place}/{equation.source_info.name_stack}".strip("/")
        operands = [atom for atom in equation.invars if _is_var(atom)]
        on_input = any(atom in origins.on_input for atom in operands)
        rule = _RULES.get(name)
        if rule is not None and on_input and all(a in origins.on_either for a in operands):
            ledger[where] = ledger.get(where, 0) + rule(equation)
        programs = [] if rule is not None else _programs(equation)
        if not programs:
            for output in equation.outvars:
                for atom in operands:
                    origins.add(output, origins, atom)
            continue
        branches = [_walk_inside(equation, *program, origins, where) for program in programs]
        # A conditional counts with its most expensive branch.
        dearest = max(branches, key=lambda branch: sum(branch.values()))
        if (name == "pallas_call" and on_input) or (name == "while" and dearest):
            raise NotImplementedError(f"a {name} at {where or 'the top'} has no fixed MACs")
        times = equation.params["length"] if name == "scan" else 1
        for inside, macs in dearest.items():
            ledger[inside] = ledger.get(inside, 0) + times * macs
    return ledger


def _same_rank(outside: list[Any], inside: list[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(outer.aval.shape) == len(inner.aval.shape) for outer, inner in pairs)


def _walk_inside(
    equation: Any, program: Any, operands: list[Any], origins: _Origins, place: str
) -> _Ledger:
    """Counts one run of an inner program; propagates origins through it and its loop carry."""
    reached = _Origins()
    for inner, outer in zip(program.invars, operands, strict=True):
        reached.add(inner, origins, outer)
    carried: list[tuple[Any, Any]] = []
    if equation.primitive.name == "scan":
        # Scanned inputs and stacked outputs have one more axis outside the loop than inside.
        count = _same_rank(equation.outvars, program.outvars)
        first = _same_rank(operands, program.invars) - count
        carried = list(zip(program.outvars[:count], program.invars[first:][:count], strict=True))
    elif equation.primitive.name == "while":
        first = equation.params["body_nconsts"]
        carried = list(zip(program.outvars, program.invars[first:], strict=True))
    while True:
        inside = _Origins(set(reached.on_input), set(reached.on_either))
        ledger = _walk(program, inside, place)
        before = reached.size()
        for out, into in carried:
            reached.add(into, inside, out)
        if reached.size() == before:
            break
    for outer, inner in zip(equation.outvars, program.outvars, strict=True):
        origins.add(outer, inside, inner)
    return ledger


def _trace(
    model: nn.Module, input_shape: tuple[int, ...], dtype: Any
) -> tuple[dict[str, Any], _Ledger]:
    """Returns the shapes of the variables and the MACs of each layer."""
    if getattr(model, "execution", "dense") != "dense":
        # The skipping form has loops whose length is unknown at trace time.
        model = model.clone(execution="dense")
    variables = abstract_variables(model, input_shape, dtype=dtype)
    example = jax.ShapeDtypeStruct((1, *input_shape), dtype)

    def forward(x, variables):
        return logits_of(model.apply(variables, x, train=False))

    jaxpr: Any = jax.make_jaxpr(forward)(example, variables).jaxpr
    origins = _Origins({jaxpr.invars[0]}, set(jaxpr.invars))
    return variables, _walk(jaxpr, origins)


def layer_macs(
    name_or_model: str | nn.Module,
    *,
    input_shape: tuple[int, ...] | None = None,
    input_dtype: Any = jnp.float32,
    **overrides: Any,
) -> dict[str, int]:
    """Counts the multiply-accumulates of each layer for one input, in order of computation.

    Args:
        name_or_model: a registered name, or a linen module.
        input_shape: (H, W, C); the model's canonical shape if None and a name is given. Models of
            text take (T,) and are counted for a text of length T.
        input_dtype: dtype of the input; an integer type for models of text.
        **overrides: passed to `create_model` with a name.

    Returns:
        Scope of the layer, such as ``"LeNet5Caffe/conv1"`` -> MACs.

    Raises:
        NotImplementedError: the number of iterations of a loop is unknown at trace time.
    """
    model, shape = resolve_model(name_or_model, input_shape, **overrides)
    return _trace(model, shape, input_dtype)[1]


def count_macs(
    name_or_model: str | nn.Module,
    *,
    input_shape: tuple[int, ...] | None = None,
    input_dtype: Any = jnp.float32,
    **overrides: Any,
) -> int:
    """Counts the multiply-accumulates of one input's forward pass, ignoring weight sparsity.

    Arguments and errors are those of `layer_macs`.
    """
    options = {"input_shape": input_shape, "input_dtype": input_dtype}
    return sum(layer_macs(name_or_model, **options, **overrides).values())


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a network.

    Attributes:
        parameters: number of trainable parameters.
        macs: multiply-accumulates of one image's forward pass.
    """

    parameters: int
    macs: int


def count_cost(name: str, **overrides: Any) -> Cost:
    """Counts parameters and multiply-accumulates of a registered network in one trace."""
    model, shape = resolve_model(name, None, **overrides)
    variables, ledger = _trace(model, shape, jnp.float32)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return Cost(parameters, sum(ledger.values()))
