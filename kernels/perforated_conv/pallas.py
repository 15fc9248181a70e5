"""Differentiable wrapper of the Pallas kernels: forward pass in Pallas, gradients in XLA."""

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
    """Returns a function (x, w) -> compact output that runs the kernel `name`.

    Raises:
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    require_kernel(name, x, geometry)

    def compute(x, w):
        return _compact(x, w, name, geometry, plan)

    # Tracing now raises the kernel's own limits while dispatch can still fall back.
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
