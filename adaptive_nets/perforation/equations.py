"""Inspection and evaluation of jaxpr equations: names, inner jaxprs, convolution parameters.

All code that depends on the form of JAX's jaxprs is in this module. "Program" means a jaxpr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.extend import core

from kernels.dense_conv import with_fast_primitive

# Names of elementwise primitives. Operands have one shape, broadcast along axes of size 1, or are
# scalars.
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
    """Checks whether an operand is a variable rather than a literal."""
    return not isinstance(atom, core.Literal)


def inner_program(equation: Any) -> tuple[Any, Sequence[Any]] | None:
    """Returns the jaxpr that an equation runs exactly once and its constants; None for others.

    A function with a custom derivative rule counts only if it has no convolutions, since the rule
    would have to be perforated too.
    """
    name, params = equation.primitive.name, equation.params
    if name != "custom_jvp_call" and name not in _INLINED and name not in _CHECKPOINTS:
        return None
    program = params.get("jaxpr", params.get("call_jaxpr"))
    program, constants = (
        (program.jaxpr, program.consts) if hasattr(program, "jaxpr") else (program, ())
    )
    if name == "custom_jvp_call" and has_convolutions(program):
        return None
    return program, constants


def is_checkpoint(equation: Any) -> bool:
    """Checks whether the equation is a checkpoint, recomputed in the backward pass."""
    return equation.primitive.name in _CHECKPOINTS


def is_inlined(equation: Any) -> bool:
    """Checks whether the equation's inner jaxpr can be inlined."""
    return equation.primitive.name in _INLINED


def has_convolutions(program: Any) -> bool:
    """Checks whether a jaxpr or a jaxpr that it runs once has convolutions."""
    for equation in program.eqns:
        inner = inner_program(equation)
        if equation.primitive.name == "conv_general_dilated" or (
            inner is not None and has_convolutions(inner[0])
        ):
            return True
    return False


def looped_convolutions(equation: Any) -> list[Any]:
    """Collects convolutions inside loops, branches and functions with custom gradients.

    Args:
        equation: an equation for which `inner_program` returns None.
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
    """Evaluates one equation on operands whose shapes may differ from the traced ones.

    A convolution is computed by `kernels.dense_conv`, whatever layer it comes from.

    Args:
        equation: equation of a jaxpr.
        operands: one per input, literals included.
    """
    values = {
        atom: value
        for atom, value in zip(equation.invars, operands, strict=True)
        if is_variable(atom)
    }
    fast = with_fast_primitive(equation)
    single = core.Jaxpr([], list(values), equation.outvars, [fast], equation.effects, _EVALUATED)
    return list(eval_jaxpr(single, [], *values.values()))


def not_perforable_reason(equation: Any, *, fixed_kernel: bool = False) -> str:
    """Returns the reason why a convolution cannot be perforated; empty if it can.

    Args:
        equation: the convolution.
        fixed_kernel: whether its weights depend on no variable. Then it is a filter, or gathers
            patches for a layer whose sums come later, such as `flax.linen.ConvLocal`.
    """
    params, output = equation.params, equation.outvars[0].aval
    if fixed_kernel:
        return "its weights are constants: a fixed filter, or the patches of ConvLocal"
    if not all(jnp.issubdtype(atom.aval.dtype, jnp.floating) for atom in equation.invars):
        return f"it convolves {equation.invars[0].aval.dtype}; expected floating-point values"
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
    """Checks whether a perforable convolution is 1x1 with stride 1 and no padding."""
    params = equation.params
    return (
        not not_perforable_reason(equation)
        and equation.invars[1].aval.shape[:2] == (1, 1)
        and set(params["window_strides"]) == {1}
        and not any(map(any, params["padding"]))
    )
