"""Equations of a traced network: what they are called, what they run inside, how one is evaluated.

JAX traces a function to a program (jaxpr) of equations. Everything that depends on how JAX writes
programs is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax.core import eval_jaxpr
from jax.extend import core

# Functions of every element alone, by the names of their primitives; operands are of one shape, or
# broadcast along axes of size 1, or scalars.
# fmt: off
ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt",
    "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "nextafter", "not", "or", "pow", "real", "reduce_precision", "rem",
    "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub",
    "tan", "tanh", "xor",
))
# fmt: on
WINDOWS = frozenset(("reduce_window_max", "reduce_window_min", "reduce_window_sum"))
_INLINED = frozenset(("jit", "pjit", "closed_call", "core_call"))
_CHECKPOINTS = frozenset(("checkpoint", "remat", "remat2"))
_EVALUATED = core.DebugInfo("jit", "evaluate", None, None)
_MAPS, _KERNELS = (0, 3, 1, 2), (3, 2, 0, 1)


def is_variable(atom: Any) -> bool:
    """Whether an operand is computed, not a literal number."""
    return not isinstance(atom, core.Literal)


def inner_program(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """The program that an equation runs once, with its constants; None for loops and others."""
    name, params = equation.primitive.name, equation.params
    if name == "custom_jvp_call" or name in _INLINED or name in _CHECKPOINTS:
        program = params.get("jaxpr", params.get("call_jaxpr"))
        return (program.jaxpr, program.consts) if hasattr(program, "jaxpr") else (program, ())
    return None


def is_checkpoint(equation: Any) -> bool:
    """Whether the backward pass computes what the equation runs once more."""
    return equation.primitive.name in _CHECKPOINTS


def is_inlined(equation: Any) -> bool:
    """Whether running the equation's program in its place is the same."""
    return equation.primitive.name in _INLINED


def has_convolutions(program: Any) -> bool:
    """Whether there are convolutions in a program or in what that runs once."""
    for equation in program.eqns:
        inner = inner_program(equation)
        if equation.primitive.name == "conv_general_dilated" or (
            inner is not None and has_convolutions(inner[0])
        ):
            return True
    return False


def looped_convolutions(equation: Any) -> list[Any]:
    """Convolutions of one image layer in loops, branches and functions with gradients of their own.

    Args:
        equation: one for which `inner_program` is None.
    """
    found = []
    for value in equation.params.values():
        for program in value if isinstance(value, (tuple, list)) else (value,):
            program = getattr(program, "jaxpr", program)
            for inside in getattr(program, "eqns", ()):
                if inside.primitive.name == "conv_general_dilated":
                    found.append(inside)
                else:
                    found.extend(looped_convolutions(inside))
    return found


def evaluate(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Runs one equation, under its own name, on values that may be of other shapes.

    Args:
        equation: of a program.
        operands: one for every input, literals included.
    """
    values = {
        atom: value
        for atom, value in zip(equation.invars, operands, strict=True)
        if is_variable(atom)
    }
    single = core.Jaxpr(
        [], list(values), equation.outvars, [equation], equation.effects, _EVALUATED
    )
    return list(eval_jaxpr(single, [], *values.values()))


def not_perforable_reason(equation: Any) -> str:
    """Why kernels cannot compute chosen positions of a convolution; empty where they can."""
    params, output = equation.params, equation.outvars[0].aval
    if output.ndim != 4:
        return f"it has {output.ndim - 2} spatial axes; expected 2"
    spec = params["dimension_numbers"]
    if (spec.lhs_spec, spec.rhs_spec, spec.out_spec) != (_MAPS, _KERNELS, _MAPS):
        return "its channels do not come last"
    if set(params["lhs_dilation"]) != {1} or set(params["rhs_dilation"]) != {1}:
        return "it is dilated or transposed"
    if params["batch_group_count"] != 1 or min(min(pair) for pair in params["padding"]) < 0:
        return "it has groups of images or negative padding"
    if output.shape[1] * output.shape[2] == 1:
        return "its output has one position"
    return ""


def is_pointwise(equation: Any) -> bool:
    """Whether a convolution that can be perforated reads one position for each output, its own."""
    params = equation.params
    return (
        not not_perforable_reason(equation)
        and equation.invars[1].aval.shape[:2] == (1, 1)
        and set(params["window_strides"]) == {1}
        and not any(map(any, params["padding"]))
    )
