"""Runs what a network traces to, some of its convolutions at some positions only.

Equations are run as they stand until a convolution has a mask. Its output exists at the kept
positions alone, and so does all that is computed from it until something needs the rest: pooling
and larger convolutions read through the map of nearest positions, whatever else has it filled.
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
    """Is told of everything that is computed; does nothing with it."""

    def convolution(self, name: str, equation: Any, operands: Sequence[Any], output: Any) -> None:
        """A convolution has run."""

    def equation(self, equation: Any, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
        """An equation that runs nothing inside has run, a convolution too."""

    def fill(self, source: Any, output: Any) -> None:
        """A compact map was written out."""

    def loop(self, equation: Any) -> None:
        """An equation was run as a whole that runs programs inside."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """A network as a program.

    Attributes:
        program: closed jaxpr.
        arguments: its inputs, flat.
        paths: of the inputs that are variables, ``"params/conv1/kernel"``; "" for others.
        tree: structure of what it returns.
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
        rngs: keys by stream, or None.
        **options: passed on.
    """

    def forward(variables, x, rngs):
        return model.apply(variables, x, rngs=rngs, **options)

    program, shapes = jax.make_jaxpr(forward, return_shape=True)(variables, x, rngs)
    named = list(flatten_paths(variables))
    arguments = jax.tree.leaves((variables, x, rngs))
    paths = (*named, *[""] * (len(arguments) - len(named)))
    return Traced(program, arguments, paths, jax.tree.structure(shapes))


class Interpreter:
    """One run of a program.

    Attributes:
        masks: name of a convolution -> its kept positions.
        interpolation: "explicit" writes every position out behind each perforated convolution.
        implementation: of `kernels.perforated_conv`.
        tap: gets the name and the output of every convolution, its bias added, and gives what the
            network goes on with.
        watcher: sees the run.
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
        self._checking = False

    def run(self, arguments: Sequence[Any]) -> Any:
        """What the network returns."""
        program = self._traced.program
        outputs, _ = self._run(program.jaxpr, program.consts, arguments, self._traced.paths)
        return jax.tree.unflatten(self._traced.tree, [self._fill(value) for value in outputs])

    def _run(
        self, program: Any, constants: Sequence[Any], arguments: Sequence[Any], paths: Sequence[str]
    ) -> tuple[list[Any], list[str]]:
        """Values of a program's outputs, and which variables they are."""
        frame = _Frame(program, constants, arguments, paths)
        for equation in program.eqns:
            operands = [frame.read(atom) for atom in equation.invars]
            if equations.inner_program(equation) is not None and self._enters(equation, operands):
                outputs, origins = self._run_inside(equation, operands, frame)
            else:
                outputs = self._run_equation(equation, operands, frame)
                origins = frame.origins_of(equation)
            frame.write(equation, outputs, origins)
        values = [frame.read(atom) for atom in program.outvars]
        return values, [frame.origin(atom) for atom in program.outvars]

    def _enters(self, equation: Any, operands: Sequence[Any]) -> bool:
        if self._watcher is not None or any(map(_is_compact, operands)):
            return True
        program, _ = equations.inner_program(equation) or (None, None)
        return equations.has_convolutions(program)

    def _run_inside(
        self, equation: Any, operands: list[Any], frame: _Frame
    ) -> tuple[list[Any], list[str]]:
        inner = equations.inner_program(equation)
        assert inner is not None
        program, constants = inner
        paths = [frame.origin(atom) for atom in equation.invars]
        if equations.is_inlined(equation) or self._watcher is not None:
            return self._run(program, constants, operands, paths)
        if equations.is_checkpoint(equation):

            def again(*operands):
                return self._run(program, constants, operands, paths)[0]

            outputs = jax.checkpoint(again, prevent_cse=equation.params["prevent_cse"])(*operands)
            return list(outputs), [""] * len(outputs)
        return self._run_with_derivative(equation, program, constants, operands, paths)

    def _run_with_derivative(self, equation, program, constants, operands, paths):
        """A function with a rule for its derivative, which is run on compact values too."""

        @jax.custom_jvp
        def call(*operands):
            return self._run(program, constants, operands, paths)[0]

        def rule(primals, tangents):
            given = [False] * len(primals)
            made, consts, zeros = equation.params["jvp_jaxpr_fun"].call_wrapped(*given)
            both = [*primals, *tangents]
            outputs, _ = self._run(made, consts, both, [""] * len(both))
            values, rest = outputs[: len(zeros)], iter(outputs[len(zeros) :])
            changes = [
                jax.tree.map(jnp.zeros_like, value) if zero else next(rest)
                for value, zero in zip(values, zeros, strict=True)
            ]
            return values, changes

        call.defjvp(rule)
        floating = all(jnp.issubdtype(atom.aval.dtype, jnp.floating) for atom in equation.invars)
        alike = False
        if self._checking:
            return self._run(program, constants, operands, paths)
        if floating and not equation.params["num_consts"]:
            self._checking = True
            try:
                values, changes = jax.eval_shape(rule, operands, operands)
            finally:
                self._checking = False
            alike = jax.tree.structure(values) == jax.tree.structure(changes)
        if not alike:
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
        name = frame.awaited.get(_biased(equation, frame)) if frame.awaited else None
        if name is not None:
            outputs = [self._tapped(name, outputs[0])]
        return outputs

    def _run_plain(self, equation: Any, operands: list[Any], frame: _Frame) -> list[Any]:
        outputs = None
        if any(map(_is_compact, operands)):
            narrow = [frame.narrow(atom) for atom in equation.invars]
            outputs = compact_rules.apply(equation, narrow)
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
            frame.awaited[equation.outvars[0]] = name
            frame.biases[equation.outvars[0]] = f"{module}/bias"
            return output
        return self._tapped(name, output)

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
        """Path of the module, with a number from the second use on."""
        collection, _, rest = kernel.partition("/")
        path = rest.rpartition("/")[0] if collection else ""
        if not path:
            parts = str(equation.source_info.name_stack).split("/")[1:]
            path = "/".join(part for part in parts if "." not in part) or "conv"
        self._uses[path] = self._uses.get(path, 0) + 1
        return path if self._uses[path] == 1 else f"{path}#{self._uses[path]}"

    def _tapped(self, name: str, output: Any) -> Any:
        return output if self._tap is None else self._tap(name, output)

    def _fill(self, value: Any) -> Any:
        if not _is_compact(value):
            return value
        if id(value) not in self._filled:
            array = compact_rules.filled(value)
            # The compact one is kept beside it, so that no other takes its place and number.
            self._filled[id(value)] = value, array
            if self._watcher is not None:
                self._watcher.fill(value, array)
        return self._filled[id(value)][1]


class _Frame:
    """Values of a program's variables while it runs.

    Attributes:
        awaited: output of a convolution whose bias comes next -> the convolution's name.
        biases: output of a convolution -> path of its bias.
    """

    def __init__(self, program, constants, arguments, paths) -> None:
        self._values = dict(zip(program.constvars, constants, strict=True))
        self._values.update(zip(program.invars, arguments, strict=True))
        self._origins = dict(zip(program.invars, paths, strict=True))
        self._narrow: dict[Any, Any] = {}
        self.awaited: dict[Any, str] = {}
        self.biases: dict[Any, str] = {}

    def read(self, atom: Any) -> Any:
        """Value of an operand."""
        return self._values[atom] if equations.is_variable(atom) else atom.val

    def narrow(self, atom: Any) -> Any:
        """As `read`; what is the same at all positions of a map has one position, where known."""
        known = equations.is_variable(atom) and atom in self._narrow
        return self._narrow[atom] if known else self.read(atom)

    def origin(self, atom: Any) -> str:
        """Path of the variable that an operand is, "" for none."""
        return self._origins.get(atom, "") if equations.is_variable(atom) else ""

    def origins_of(self, equation: Any) -> list[str]:
        """What outputs are when nothing but shape or type of a variable has changed."""
        same = ("reshape", "broadcast_in_dim", "convert_element_type", "copy", "copy_p")
        if equation.primitive.name in same:
            return [self.origin(equation.invars[0])]
        return [""] * len(equation.outvars)

    def write(self, equation: Any, outputs: Sequence[Any], origins: Sequence[str]) -> None:
        """Values of an equation's outputs."""
        for variable, value, origin in zip(equation.outvars, outputs, origins, strict=True):
            self._values[variable] = value
            if origin:
                self._origins[variable] = origin
        if equation.primitive.name == "broadcast_in_dim" and equation.outvars[0].aval.ndim == 4:
            narrow = compact_rules.narrow(equation, self.narrow(equation.invars[0]))
            if narrow is not None:
                self._narrow[equation.outvars[0]] = narrow


def _biased(equation: Any, frame: _Frame) -> Any:
    """The output of a convolution to which an equation adds its bias, else None."""
    if equation.primitive.name != "add":
        return None
    first, second = equation.invars
    for output, bias in ((first, second), (second, first)):
        known = equations.is_variable(output) and output in frame.awaited
        if known and frame.origin(bias) == frame.biases[output]:
            return output
    return None


def _is_compact(value: Any) -> bool:
    return isinstance(value, CompactTensor | Tiles)


def _reads_compact(implementation: Any) -> bool:
    return implementation is None or implementation in ("xla", "dense", "reference")
