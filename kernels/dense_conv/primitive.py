"""JAX primitive of the dense convolution: JAX's own, except for its form on a CPU.

The primitive takes the operands and parameters of `jax.lax.conv_general_dilated_p` and inherits
its rules (shapes, derivatives, batching). A derivative of a convolution is a convolution, which
becomes this primitive again, so the CPU form also applies to gradients of any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.core import eval_jaxpr
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from kernels.dense_conv import xla

_JAX_PRIMITIVE = lax.conv_general_dilated_p
# Programs that read jaxprs by name, such as counters of MACs, treat both alike.
dense_conv_p = Primitive(_JAX_PRIMITIVE.name)


def with_fast_primitive(equation: Any) -> Any:
    """Returns an equation of a jaxpr, with this primitive if it is JAX's convolution."""
    if equation.primitive is _JAX_PRIMITIVE:
        return equation.replace(primitive=dense_conv_p)
    return equation


def with_fast_convolutions(function: Callable[..., Any], *operands: Any) -> Any:
    """Calls a function of arrays with its convolutions replaced by this primitive.

    Convolutions inside inner jaxprs, such as loop bodies, are left as they are.

    Args:
        function: function whose result is one array.
        *operands: its arrays.
    """
    traced = jax.make_jaxpr(function)(*operands)
    equations = list(map(with_fast_primitive, traced.jaxpr.eqns))
    (result,) = eval_jaxpr(traced.jaxpr.replace(eqns=equations), traced.consts, *operands)
    return result


@functools.lru_cache(maxsize=4096)
def _compiled(parameters: tuple[tuple[str, Any], ...]) -> Callable[..., Array]:
    return jax.jit(functools.partial(dense_conv_p.bind, **dict(parameters)))


@dense_conv_p.def_impl
def _compute(lhs, rhs, **params):
    return _compiled(tuple(sorted(params.items())))(lhs, rhs)


@dense_conv_p.def_effectful_abstract_eval
def _abstract(lhs, rhs, **params):
    return _JAX_PRIMITIVE.abstract_eval(lhs, rhs, **params)


def _transpose_lhs(cotangent, lhs, rhs, **params):
    def transpose(cotangent, rhs):
        rule = ad.get_primitive_transpose(_JAX_PRIMITIVE)
        return ad.instantiate_zeros(rule(cotangent, ad.UndefinedPrimal(lhs.aval), rhs, **params)[0])

    return with_fast_convolutions(transpose, cotangent, rhs)


def _transpose_rhs(cotangent, lhs, rhs, **params):
    def transpose(cotangent, lhs):
        rule = ad.get_primitive_transpose(_JAX_PRIMITIVE)
        return ad.instantiate_zeros(rule(cotangent, lhs, ad.UndefinedPrimal(rhs.aval), **params)[1])

    return with_fast_convolutions(transpose, cotangent, lhs)


ad.defbilinear(dense_conv_p, _transpose_lhs, _transpose_rhs)


def _batch(operands, axes, **params):
    batched = jax.vmap(functools.partial(_JAX_PRIMITIVE.bind, **params), in_axes=axes)
    return with_fast_convolutions(batched, *operands), 0


batching.primitive_batchers[dense_conv_p] = _batch


def _lower_for_cpu(context, lhs, rhs, **params):
    compute = functools.partial(xla.convolve, one_device=_is_local(context.module_context))
    return mlir.lower_fun(compute, multiple_results=False)(context, lhs, rhs, **params)


def _is_local(module: Any) -> bool:
    """Checks whether the operands lie on one device: no partitioner divides the program."""
    axes = module.axis_context
    if isinstance(axes, mlir.SPMDAxisContext):
        return axes.mesh.size == 1 or axes.manual_axes == frozenset(axes.mesh.axis_names)
    return getattr(axes, "num_devices", 1) == 1


mlir.register_lowering(dense_conv_p, mlir.lower_fun(_JAX_PRIMITIVE.bind, multiple_results=False))
mlir.register_lowering(dense_conv_p, _lower_for_cpu, platform="cpu")
