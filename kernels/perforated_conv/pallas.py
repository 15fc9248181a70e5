"""Differentiable wrapper of the Pallas kernels: forward pass in Pallas, gradients in XLA."""

from __future__ import annotations

import dataclasses
import importlib

import jax
from jaxtyping import Array

from kernels._common.geometry import Geometry
from kernels._common.requirements import require_kernel
from kernels._common.trilinear import convolve
from kernels.perforated_conv.plan import Plan
from kernels.perforated_conv.xla import PerforatedConvolution


def bind(name: str, x, w, geometry: Geometry, plan: Plan):
    """Returns a function (x, w) -> compact output that runs the kernel `name`.

    Raises:
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    require_kernel(name, x, geometry)

    form = _Kernel(geometry, plan, name=name)

    def compute(x, w):
        return convolve(form, x, w)

    # Tracing now raises the kernel's own limits while dispatch can still fall back.
    jax.eval_shape(compute, x, w)
    return compute


@dataclasses.dataclass(frozen=True)
class _Kernel(PerforatedConvolution):
    """Perforated convolution whose values are computed by a Pallas kernel."""

    name: str = ""

    def y(self, x: Array, w: Array) -> Array:
        module = importlib.import_module(f"kernels.perforated_conv.{self.name}")
        return module.forward(x, w, self.plan.positions, self.geometry)
