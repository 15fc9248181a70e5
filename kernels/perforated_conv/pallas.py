"""The Pallas kernels behind one differentiable call: values by the kernel, gradients by XLA."""

from __future__ import annotations

import functools
import importlib

import jax
from jaxtyping import Array

from kernels._common.geometry import Geometry
from kernels._common.requirements import require_kernel
from kernels.perforated_conv.plan import Plan
from kernels.perforated_conv.xla import compact_gradients


def bind(name: str, x, w, geometry: Geometry, plan: Plan):
    """A function (x, w) -> compact output that runs the kernel `name`.

    Raises:
        NotImplementedError: not for these inputs, or not on this machine.
    """
    require_kernel(name, x, geometry)

    def compute(x, w):
        return _compact(x, w, name, geometry, plan)

    # Limits of a kernel's own show when it is traced, while another can still be chosen.
    jax.eval_shape(compute, x, w)
    return compute


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _compact(x: Array, w: Array, name: str, geometry: Geometry, plan: Plan) -> Array:
    module = importlib.import_module(f"kernels.perforated_conv.{name}")
    return module.forward(x, w, plan.positions, geometry)


def _forward(x, w, name, geometry, plan):
    return _compact(x, w, name, geometry, plan), (x, w)


def _backward(name, geometry, plan, residuals, cotangents):
    del name
    x, w = residuals
    return compact_gradients(x, w, cotangents, geometry, plan.positions)


_compact.defvjp(_forward, _backward)
