"""Interpreter of a network's jaxpr that perforates selected convolutions.

The output of a convolution with a mask is compact: stored at kept positions only. Values computed
from it stay compact as long as a rule of `compact_rules` applies. Pooling and larger convolutions
read compact maps through the nearest-kept map; any other equation gets filled maps.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.models.shapes import flatten_paths
from adaptive_nets.perforation import compact_rules, equations
from adaptive_nets.perforation.adapters import adapt_network, canonical_variables
from adaptive_nets.perforation.compact_rules import Tiles
from adaptive_nets.perforation.frame import IMAGE, Frame, Sources, kernel_path
from kernels.perforated_conv import CompactTensor, perforated_conv
from kernels.perforated_conv.plan import Plan

Interpolation = Literal["implicit", "explicit"]
Tap = Callable[[str, Any], Any]


class EquationObserver:
    """Callbacks of an interpreter run; the base class ignores all events."""

    def convolution(
        self, name: str, equation: Any, operands: Sequence[Any], output: Any, reason: str
    ) -> None:
        """Called after a convolution; `reason` says why it cannot be perforated, if it cannot."""

    def equation(self, equation: Any, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Called after an equation without an inner jaxpr, including convolutions."""

    def fill(self, source: Any, output: Any) -> None:
        """Called after a compact map was filled."""

    def loop(self, equation: Any) -> None:
        """Called after an equation whose inner jaxprs have convolutions but are not interpreted."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """Traced network.

    Attributes:
        program: closed jaxpr.
        arguments: flat inputs.
        paths: path of each input that is a variable, such as ``"params/conv1/kernel"``, else "".
        tree: pytree structure of the output.
    """

    program: Any
    arguments: Sequence[Any]
    paths: tuple[str, ...]
    tree: Any


def trace(model: Any, variables: Any, x: Any, rngs: Any = None, **options: Any) -> Traced:
    """Traces ``model.apply(variables, x, rngs=rngs, **options)``.

    Args:
        model: the network; it is adapted by `adapt_network`.
        variables: arrays or shapes.
        x: array or shape.
        rngs: PRNG keys by stream, or None.
        **options: further arguments of `model.apply`.
    """
    network = adapt_network(model)
    variables = canonical_variables(network, variables)

    def forward(variables, x, rngs):
        return network.apply(variables, x, rngs=rngs, **options)

    program, shapes = jax.make_jaxpr(forward, return_shape=True)(variables, x, rngs)
    named = list(flatten_paths(variables))
    # NumPy arrays in the types that JAX gives them, as in the traced program.
    arguments = [
        jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf
        for leaf in jax.tree.leaves((variables, x, rngs))
    ]
    paths = (*named, *[""] * (len(arguments) - len(named)))
    return Traced(program, arguments, paths, jax.tree.structure(shapes))


class Interpreter:
    """Interpreter for one run of a traced network.

    Args:
        traced: the network.
        masks: name of a convolution -> its kept positions.
        interpolation: "explicit" fills the output of each perforated convolution.
        implementation: implementation of `kernels.perforated_conv`.
        tap: callback (name, output with bias) -> replacement output, for every convolution.
        watcher: observer of the run.
    """

    def __init__(
        self,
        traced: Traced,
        masks: Mapping[str, Plan],
        *,
        interpolation: Interpolation = "implicit",
        implementation: Any = None,
        tap: Tap | None = None,
        watcher: EquationObserver | None = None,
    ) -> None:
        self._traced = traced
        self._masks = masks
        self._interpolation = interpolation
        self._implementation = implementation
        self._tap = tap
        self._watcher = watcher
        self._paths = set(traced.paths)
        self._uses: dict[str, int] = {}
        self._filled: dict[int, tuple[Any, Any]] = {}
        self._checking_rule = False

    def run(self, arguments: Sequence[Any]) -> Any:
        """Runs the network and returns its output."""
        program = self._traced.program
        sources = [frozenset((path or IMAGE,)) for path in self._traced.paths]
        outputs = self._run(program.jaxpr, program.consts, arguments, sources)
        return jax.tree.unflatten(self._traced.tree, [self._fill(value) for value in outputs])

    def _run(
        self,
        program: Any,
        constants: Sequence[Any],
        arguments: Sequence[Any],
        sources: Sequence[Sources],
    ) -> list[Any]:
        """Runs a jaxpr and returns its outputs."""
        frame = Frame(program, constants, arguments, sources)
        for equation in program.eqns:
            operands = [frame.read(atom) for atom in equation.invars]
            inner = equations.inner_program(equation)
            if inner is not None and self._must_interpret(inner[0], operands):
                outputs = self._run_inner(equation, operands, frame)
            else:
                outputs = self._run_equation(equation, operands, frame)
            frame.write(equation, outputs)
        return [frame.read(atom) for atom in program.outvars]

    def _must_interpret(self, program: Any, operands: Sequence[Any]) -> bool:
        """Checks whether an inner jaxpr has to be interpreted rather than evaluated as a whole."""
        if self._watcher is not None or any(map(_is_compact, operands)):
            return True
        return equations.has_convolutions(program)

    def _run_inner(self, equation: Any, operands: list[Any], frame: Frame) -> list[Any]:
        inner = equations.inner_program(equation)
        assert inner is not None
        program, constants = inner
        sources = [frame.sources(atom) for atom in equation.invars]
        # A tap may keep outputs, which a checkpoint would not let out.
        tapped = self._tap is not None and equations.is_checkpoint(equation)
        if equations.is_inlined(equation) or self._watcher is not None or tapped:
            return self._run(program, constants, operands, sources)
        if equations.is_checkpoint(equation):

            def rerun(*operands):
                return self._run(program, constants, operands, sources)

            return list(
                jax.checkpoint(rerun, prevent_cse=equation.params["prevent_cse"])(*operands)
            )
        return self._run_with_derivative(equation, program, constants, operands, sources)

    def _run_with_derivative(self, equation, program, constants, operands, sources) -> list[Any]:
        """Runs a `custom_jvp` function; its derivative rule also runs on compact values."""
        # Tiles are no arrays; what reduces them is seldom a function with a rule of its own.
        operands = [self._fill(value) if isinstance(value, Tiles) else value for value in operands]

        @jax.custom_jvp
        def call(*operands):
            return self._run(program, constants, operands, sources)

        def rule(primals, tangents):
            no_zeros = [False] * len(primals)
            jvp, consts, zeros = equation.params["jvp_jaxpr_fun"].call_wrapped(*no_zeros)
            both = [*primals, *tangents]
            outputs = self._run(jvp, consts, both, [frozenset((IMAGE,))] * len(both))
            values, rest = outputs[: len(zeros)], iter(outputs[len(zeros) :])
            out_tangents = [
                jax.tree.map(jnp.zeros_like, value) if zero else next(rest)
                for value, zero in zip(values, zeros, strict=True)
            ]
            return values, out_tangents

        call.defjvp(rule)
        floating = all(jnp.issubdtype(atom.aval.dtype, jnp.floating) for atom in equation.invars)
        # The rule applies if values and tangents are compact or filled alike.
        same_structure = False
        if self._checking_rule:
            return self._run(program, constants, operands, sources)
        if floating and not equation.params["num_consts"]:
            self._checking_rule = True
            try:
                values, out_tangents = jax.eval_shape(rule, operands, operands)
            finally:
                self._checking_rule = False
            same_structure = jax.tree.structure(values) == jax.tree.structure(out_tangents)
        if not same_structure:
            filled = [self._fill(value) for value in operands]
            return equations.evaluate(equation, filled)
        return list(call(*operands))

    def _run_equation(self, equation: Any, operands: list[Any], frame: Frame) -> list[Any]:
        if equation.primitive.name == "conv_general_dilated":
            outputs = [self._convolve(equation, operands, frame)]
        else:
            outputs = self._run_plain(equation, operands, frame)
        name = frame.awaited.pop(equation.outvars[0], None)
        if name is not None:
            outputs = [self._apply_tap(name, outputs[0])]
        return outputs

    def _run_plain(self, equation: Any, operands: list[Any], frame: Frame) -> list[Any]:
        outputs = None
        if any(map(_is_compact, operands)):
            unbroadcast = [frame.read_unbroadcast(atom) for atom in equation.invars]
            outputs = compact_rules.apply(equation, unbroadcast)
            if outputs is None:
                operands = [self._fill(value) for value in operands]
        if outputs is None:
            outputs = equations.evaluate(equation, operands)
        if self._watcher is not None:
            self._watcher.equation(equation, operands, outputs)
            if equations.looped_convolutions(equation):
                self._watcher.loop(equation)
        return outputs

    def _convolve(self, equation: Any, operands: list[Any], frame: Frame) -> Any:
        sources = frame.sources(equation.invars[1])
        kernel = kernel_path(sources)
        name = self._name(equation, kernel)
        plan = self._masks.get(name)
        if plan is None:
            (output,) = self._run_plain(equation, operands, frame)
        else:
            output = self._perforate(equation, operands, plan)
            if self._watcher is not None:
                self._watcher.equation(equation, operands, [output])
        if self._watcher is not None:
            reason = equations.not_perforable_reason(equation, fixed_kernel=not sources)
            self._watcher.convolution(name, equation, operands, output, reason)
        bias = f"{kernel.rpartition('/')[0]}/bias"
        total = frame.sum_with_bias(equation.outvars[0], bias) if bias in self._paths else None
        if total is not None:
            frame.awaited[total] = name
            return output
        return self._apply_tap(name, output)

    def _perforate(self, equation: Any, operands: list[Any], plan: Plan) -> Any:
        params = equation.params
        x, w = operands[0], self._fill(operands[1])
        if isinstance(x, Tiles):
            x = self._fill(x)
        if isinstance(x, CompactTensor) and not _reads_compact(self._implementation):
            x = self._fill(x)
        options: dict[str, Any] = {
            "strides": params["window_strides"],
            "padding": params["padding"],
            "groups": params["feature_group_count"],
            "nearest": plan.positions[plan.source].reshape(plan.size),
            "implementation": self._implementation,
        }
        x, w = _in_preferred_type(params["preferred_element_type"], x, w)
        fill = "nearest" if self._interpolation == "explicit" else "compact"
        with _precision(params["precision"]):
            y = perforated_conv(x, w, plan.mask, fill=fill, **options)
        return y if fill == "nearest" else CompactTensor(y, plan)

    def _name(self, equation: Any, kernel: str) -> str:
        """Returns the module path of a convolution, with suffix "#k" from its second use on."""
        collection, _, rest = kernel.partition("/")
        path = rest.rpartition("/")[0] if collection else ""
        if not path:
            parts = str(equation.source_info.name_stack).split("/")[1:]
            path = "/".join(part for part in parts if "." not in part) or "conv"
        self._uses[path] = self._uses.get(path, 0) + 1
        return path if self._uses[path] == 1 else f"{path}#{self._uses[path]}"

    def _apply_tap(self, name: str, output: Any) -> Any:
        return output if self._tap is None else self._tap(name, output)

    def _fill(self, value: Any) -> Any:
        if not _is_compact(value):
            return value
        if id(value) not in self._filled:
            array = compact_rules.filled(value)
            # The compact value is kept alive, so that its id() stays unique.
            self._filled[id(value)] = value, array
            if self._watcher is not None:
                self._watcher.fill(value, array)
        return self._filled[id(value)][1]


def _is_compact(value: Any) -> bool:
    return isinstance(value, CompactTensor | Tiles)


def _reads_compact(implementation: Any) -> bool:
    return implementation is None or implementation in ("xla", "dense", "reference")


def _in_preferred_type(dtype: Any, x: Any, w: Any) -> tuple[Any, Any]:
    """Converts both operands to the type of the products, if the convolution asks for another."""
    if dtype is None or x.dtype == w.dtype == dtype:
        return x, w
    values = x.values if isinstance(x, CompactTensor) else x
    values = values.astype(dtype)
    return x.replace(values) if isinstance(x, CompactTensor) else values, w.astype(dtype)


def _precision(precision: Any) -> contextlib.AbstractContextManager[Any]:
    """Sets the precision of matrix products to that of a convolution, the higher of its two."""
    chosen = [p for p in precision or () if isinstance(p, jax.lax.Precision)]
    if not chosen:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(max(chosen, key=lambda p: p.value).name.lower())
