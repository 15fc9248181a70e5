"""Fast convolutions with derivatives of every order, in forward and in reverse mode.

A convolution at selected positions is the derivative of a trilinear form

    T(y, x, w) = Σ y[n, p, o] · x[n, p·stride + t, c] · w[t, c, o]   over selected positions p

with respect to y, the cotangent of its output; the gradients for x and w are the derivatives with
respect to these. Each of the three maps is linear in two arguments, so its tangents are maps of the
same kind, and so are its transposes. One primitive with these rules lets loops of run-time length,
Pallas kernels and other functions without a derivative of their own be differentiated as often as
wanted, linearised, transposed and batched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from kernels._common.arrays import vary_alike

Argument = Literal["y", "x", "w"]
_ARGUMENTS: tuple[Argument, ...] = ("y", "x", "w")


class TrilinearForm(Protocol):
    """A trilinear form by its three derivatives; a static value, compared and hashed by content.

    Each method takes the other two arguments in the order y, x, w, and then further arrays (such as
    a run-time mask) that are not differentiated. Its result has the dtype of its arguments.
    """

    @property
    def y(self) -> Callable[..., Array]:
        """Computes the derivative with respect to y: the convolution."""
        ...

    @property
    def x(self) -> Callable[..., Array]:
        """Computes the derivative with respect to x: the input gradient."""
        ...

    @property
    def w(self) -> Callable[..., Array]:
        """Computes the derivative with respect to w: the weight gradient."""
        ...


def convolve(form: TrilinearForm, x: Any, w: Any, *fixed: Any) -> Array:
    """Computes ``form.y(x, w, *fixed)``, differentiable in x and w.

    Args:
        form: the trilinear form.
        x: input.
        w: weights.
        *fixed: arrays that are not differentiated.
    """
    return _bind(form, "y", x, w, *fixed)


def _bind(form: TrilinearForm, wanted: Argument, *operands: Any) -> Array:
    operands = vary_alike(*map(jnp.asarray, operands))
    # The program is traced here, so that tools which read programs see it and a form that does not
    # support its arguments raises where it is called.
    program = jax.make_jaxpr(_method(form, wanted))(*operands)
    return _primitive.bind(*operands, form=form, wanted=wanted, program=program)


def _method(form: TrilinearForm, wanted: Argument) -> Callable[..., Array]:
    return {"y": form.y, "x": form.x, "w": form.w}[wanted]


def _others(wanted: Argument) -> list[Argument]:
    return [name for name in _ARGUMENTS if name != wanted]


@dataclasses.dataclass(frozen=True)
class _Batched:
    """Sum of a form over a batch axis, the first axis of those arguments that have one."""

    form: TrilinearForm
    batched: frozenset[Argument]
    fixed: tuple[bool, ...]

    def _map(self, wanted: Argument, *operands: Array) -> Array:
        axes = [0 if name in self.batched else None for name in _others(wanted)]
        axes += [0 if batched else None for batched in self.fixed]
        results = jax.vmap(_method(self.form, wanted), in_axes=axes)(*operands)
        return results if wanted in self.batched else jnp.sum(results, axis=0)

    def y(self, x: Array, w: Array, *fixed: Array) -> Array:
        return self._map("y", x, w, *fixed)

    def x(self, y: Array, w: Array, *fixed: Array) -> Array:
        return self._map("x", y, w, *fixed)

    def w(self, y: Array, x: Array, *fixed: Array) -> Array:
        return self._map("w", y, x, *fixed)


def _compute(*operands: Array, program: Any, form: Any, wanted: Any) -> Array:
    del form, wanted
    (result,) = jaxpr_as_fun(program)(*operands)
    return result


def _compute_eagerly(*operands: Array, program: Any, form: Any, wanted: Any) -> Array:
    del program
    # Compiled once for each form; operation by operation, every loop would be compiled again.
    return _compiled(form, wanted, *operands)


def _call(form: TrilinearForm, wanted: Argument, *operands: Array) -> Array:
    return _method(form, wanted)(*operands)


_compiled = jax.jit(_call, static_argnums=(0, 1))


def _differentiate(primals, tangents, *, form, wanted, program) -> tuple[Array, Any]:
    del program
    result = _bind(form, wanted, *primals)
    (first, second, *fixed), (d_first, d_second, *_) = primals, tangents
    terms = []
    if not isinstance(d_first, ad.Zero):
        terms.append(_bind(form, wanted, d_first, second, *fixed))
    if not isinstance(d_second, ad.Zero):
        terms.append(_bind(form, wanted, first, d_second, *fixed))
    if not terms:
        return result, ad.Zero(jax.typeof(result).to_tangent_aval())
    return result, sum(terms[1:], start=terms[0])


def _transpose(cotangent, *operands, form, wanted, program) -> list[Any]:
    del program
    names, fixed = _others(wanted), operands[2:]
    results: list[Any] = [None] * len(operands)
    if isinstance(cotangent, ad.Zero):
        return results
    for place, name in enumerate(names):
        if not ad.is_undefined_primal(operands[place]):
            continue
        known = {wanted: cotangent, names[1 - place]: operands[1 - place]}
        results[place] = _bind(form, name, *(known[other] for other in _others(name)), *fixed)
    return results


def _batch(operands, axes, *, form, wanted, program) -> tuple[Array, int]:
    del program
    moved = [
        operand if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    batched: set[Argument] = {
        name for name, axis in zip(_others(wanted), axes, strict=False) if axis is not None
    }
    fixed = tuple(axis is not None for axis in axes[2:])
    return _bind(_Batched(form, frozenset(batched | {wanted}), fixed), wanted, *moved), 0


_primitive = Primitive("selected_convolution")
_primitive.def_impl(_compute_eagerly)
_primitive.def_abstract_eval(lambda *_, program, **__: program.out_avals[0])
ad.primitive_jvps[_primitive] = _differentiate
ad.primitive_transposes[_primitive] = _transpose
batching.primitive_batchers[_primitive] = _batch
mlir.register_lowering(_primitive, mlir.lower_fun(_compute, multiple_results=False))
