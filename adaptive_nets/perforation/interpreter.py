"""Interpreter of a network's jaxpr that perforates selected convolutions.

The output of a convolution with a mask is compact: stored at kept positions only. Values computed
from it stay compact as long as a rule of `compact_rules` applies. Pooling and larger convolutions
read compact maps through the nearest-kept map; any other equation gets filled maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.models.shapes import flatten_paths
from adaptive_nets.perforation import compact_rules, equations
from adaptive_nets.perforation.compact_rules import Tiles
from kernels.perforated_conv import CompactTensor, perforated_conv
from kernels.perforated_conv.plan import Plan

Interpolation = Literal["implicit", "explicit"]
Tap = Callable[[str, Any], Any]


class EquationObserver:
    """Callbacks of an interpreter run; the base class ignores all events."""

    def convolution(self, name: str, equation: Any, operands: Sequence[Any], output: Any) -> None:
        """Called after a convolution."""

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


def trace(model: nn.Module, variables: Any, x: Any, rngs: Any = None, **options: Any) -> Traced:
    """Traces ``model.apply(variables, x, rngs=rngs, **options)``.

    Args:
        model: the network.
        variables: arrays or shapes.
        x: array or shape.
        rngs: PRNG keys by stream, or None.
        **options: further arguments of `model.apply`.
    """

    def forward(variables, x, rngs):
        return model.apply(variables, x, rngs=rngs, **options)

    program, shapes = jax.make_jaxpr(forward, return_shape=True)(variables, x, rngs)
    named = list(flatten_paths(variables))
    arguments = jax.tree.leaves((variables, x, rngs))
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
        outputs, _ = self._run(program.jaxpr, program.consts, arguments, self._traced.paths)
        return jax.tree.unflatten(self._traced.tree, [self._fill(value) for value in outputs])

    def _run(
        self, program: Any, constants: Sequence[Any], arguments: Sequence[Any], paths: Sequence[str]
    ) -> tuple[list[Any], list[str]]:
        """Runs a jaxpr; returns its outputs and their origins, paths of network variables or ""."""
        frame = _Frame(program, constants, arguments, paths)
        for equation in program.eqns:
            operands = [frame.read(atom) for atom in equation.invars]
            inner = equations.inner_program(equation)
            if inner is not None and self._must_interpret(inner[0], operands):
                outputs, origins = self._run_inner(equation, operands, frame)
            else:
                outputs = self._run_equation(equation, operands, frame)
                origins = frame.origins_of(equation)
            frame.write(equation, outputs, origins)
        values = [frame.read(atom) for atom in program.outvars]
        return values, [frame.origin(atom) for atom in program.outvars]

    def _must_interpret(self, program: Any, operands: Sequence[Any]) -> bool:
        """Checks whether an inner jaxpr has to be interpreted rather than evaluated as a whole."""
        if self._watcher is not None or any(map(_is_compact, operands)):
            return True
        return equations.has_convolutions(program)

    def _run_inner(
        self, equation: Any, operands: list[Any], frame: _Frame
    ) -> tuple[list[Any], list[str]]:
        inner = equations.inner_program(equation)
        assert inner is not None
        program, constants = inner
        paths = [frame.origin(atom) for atom in equation.invars]
        if equations.is_inlined(equation) or self._watcher is not None:
            return self._run(program, constants, operands, paths)
        if equations.is_checkpoint(equation):

            def rerun(*operands):
                return self._run(program, constants, operands, paths)[0]

            outputs = jax.checkpoint(rerun, prevent_cse=equation.params["prevent_cse"])(*operands)
            return list(outputs), [""] * len(outputs)
        return self._run_with_derivative(equation, program, constants, operands, paths)

    def _run_with_derivative(self, equation, program, constants, operands, paths):
        """Runs a `custom_jvp` function; its derivative rule also runs on compact values."""

        @jax.custom_jvp
        def call(*operands):
            return self._run(program, constants, operands, paths)[0]

        def rule(primals, tangents):
            no_zeros = [False] * len(primals)
            jvp, consts, zeros = equation.params["jvp_jaxpr_fun"].call_wrapped(*no_zeros)
            both = [*primals, *tangents]
            outputs, _ = self._run(jvp, consts, both, [""] * len(both))
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
            return self._run(program, constants, operands, paths)
        if floating and not equation.params["num_consts"]:
            self._checking_rule = True
            try:
                values, out_tangents = jax.eval_shape(rule, operands, operands)
            finally:
                self._checking_rule = False
            same_structure = jax.tree.structure(values) == jax.tree.structure(out_tangents)
        if not same_structure:
            filled = [self._fill(value) for value in operands]
            outputs = equations.evaluate(equation, filled)
        else:
            outputs = list(call(*operands))
        return outputs, [""] * len(outputs)

    def _run_equation(self, equation: Any, operands: list[Any], frame: _Frame) -> list[Any]:
        if equation.primitive.name == "conv_general_dilated":
            outputs = [self._convolve(equation, operands, frame)]
        else:
            outputs = self._run_plain(equation, operands, frame)
        name = frame.awaiting_bias.get(_biased_output(equation, frame))
        if name is not None:
            outputs = [self._apply_tap(name, outputs[0])]
        return outputs

    def _run_plain(self, equation: Any, operands: list[Any], frame: _Frame) -> list[Any]:
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

    def _convolve(self, equation: Any, operands: list[Any], frame: _Frame) -> Any:
        kernel = frame.origin(equation.invars[1])
        name = self._name(equation, kernel)
        plan = self._masks.get(name)
        if plan is None:
            (output,) = self._run_plain(equation, operands, frame)
        else:
            output = self._perforate(equation, operands, plan)
            if self._watcher is not None:
                self._watcher.equation(equation, operands, [output])
        if self._watcher is not None:
            self._watcher.convolution(name, equation, operands, output)
        module = kernel.rpartition("/")[0]
        if f"{module}/bias" in self._paths:
            frame.awaiting_bias[equation.outvars[0]] = name
            frame.biases[equation.outvars[0]] = f"{module}/bias"
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
        if self._interpolation == "explicit":
            return perforated_conv(x, w, plan.mask, **options)
        values = perforated_conv(x, w, plan.mask, fill="compact", **options)
        return CompactTensor(values, plan)

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


class _Frame:
    """Environment of one jaxpr: values of its variables and the network variables they stem from.

    Attributes:
        awaiting_bias: output of a convolution without its bias yet -> name of the convolution.
        biases: output of a convolution -> path of its bias.
    """

    def __init__(self, program, constants, arguments, paths) -> None:
        self._values = dict(zip(program.constvars, constants, strict=True))
        self._values.update(zip(program.invars, arguments, strict=True))
        self._origins = dict(zip(program.invars, paths, strict=True))
        self._unbroadcast: dict[Any, Any] = {}
        self.awaiting_bias: dict[Any, str] = {}
        self.biases: dict[Any, str] = {}

    def read(self, atom: Any) -> Any:
        """Returns the value of an operand."""
        return self._values[atom] if equations.is_variable(atom) else atom.val

    def read_unbroadcast(self, atom: Any) -> Any:
        """Returns the value of an operand before its broadcast over positions, if there is one."""
        known = equations.is_variable(atom) and atom in self._unbroadcast
        return self._unbroadcast[atom] if known else self.read(atom)

    def origin(self, atom: Any) -> str:
        """Returns the path of the network variable that an operand is; "" if it is none."""
        return self._origins.get(atom, "") if equations.is_variable(atom) else ""

    def origins_of(self, equation: Any) -> list[str]:
        """Returns the origins of an equation's outputs; reshapes and casts preserve the origin."""
        preserving = ("reshape", "broadcast_in_dim", "convert_element_type", "copy", "copy_p")
        if equation.primitive.name in preserving:
            return [self.origin(equation.invars[0])]
        return [""] * len(equation.outvars)

    def write(self, equation: Any, outputs: Sequence[Any], origins: Sequence[str]) -> None:
        """Stores the values and origins of an equation's outputs."""
        for variable, value, origin in zip(equation.outvars, outputs, origins, strict=True):
            self._values[variable] = value
            if origin:
                self._origins[variable] = origin
        if equation.primitive.name == "broadcast_in_dim" and equation.outvars[0].aval.ndim == 4:
            operand = self.read_unbroadcast(equation.invars[0])
            unbroadcast = compact_rules.unbroadcast(equation, operand)
            if unbroadcast is not None:
                self._unbroadcast[equation.outvars[0]] = unbroadcast


def _biased_output(equation: Any, frame: _Frame) -> Any:
    """Returns the convolution output to which the equation adds its bias, or None."""
    if equation.primitive.name != "add":
        return None
    first, second = equation.invars
    for output, bias in ((first, second), (second, first)):
        known = equations.is_variable(output) and output in frame.awaiting_bias
        if known and frame.origin(bias) == frame.biases[output]:
            return output
    return None


def _is_compact(value: Any) -> bool:
    return isinstance(value, CompactTensor | Tiles)


def _reads_compact(implementation: Any) -> bool:
    return implementation is None or implementation in ("xla", "dense", "reference")
