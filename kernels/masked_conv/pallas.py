"""Differentiable wrapper of the Pallas kernels: forward pass in Pallas, gradients in XLA."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kernels._common.geometry import Geometry
from kernels._common.requirements import require_kernel
from kernels._common.trilinear import convolve
from kernels.masked_conv.active import list_active
from kernels.masked_conv.xla import MaskedConvolution, dense


def bind(name: str, x, w, mask, geometry: Geometry, capacity: int | None):
    """Returns a function (x, w, mask) -> output that runs the kernel `name`.

    Raises:
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    require_kernel(name, x, geometry)
    form = _Kernel(geometry, capacity, name)

    def compute(x, w, mask):
        return convolve(form, x, w, mask)

    # Tracing now raises the kernel's own limits while dispatch can still fall back.
    jax.eval_shape(compute, x, w, mask)
    return compute


@dataclasses.dataclass(frozen=True)
class _Kernel(MaskedConvolution):
    """Masked convolution whose values are computed by a Pallas kernel."""

    name: str = ""

    def _listed(self) -> int:
        """Returns the length of the list of active positions."""
        positions = self.geometry.batch * self.geometry.positions
        return positions if self.capacity is None else min(self.capacity, positions)

    def _choose(
        self, mask: Array, every: Callable[[], Array], active: Callable[[], Array]
    ) -> Array:
        room = self._listed()
        if room == mask.size:
            return active()
        return lax.cond(jnp.sum(mask, dtype=jnp.int32) > room, every, active)

    def y(self, x: Array, w: Array, mask: Array) -> Array:
        geometry = self.geometry
        return self._choose(
            mask,
            lambda: dense(x, w, mask, geometry),
            lambda: _convolve_listed(self.name, x, w, mask, geometry, self._listed()),
        )


def _convolve_listed(
    name: str, x: Array, w: Array, mask: Array, geometry: Geometry, room: int
) -> Array:
    module = importlib.import_module(f"kernels.masked_conv.{name}")
    active = list_active(mask, capacity=room)
    y = module.forward(x, w, active.rows, active.count, geometry)
    positions = geometry.batch * geometry.positions
    valid = jnp.arange(room, dtype=jnp.int32) < active.count
    places = jnp.where(valid, active.rows, jnp.int32(positions))
    out = jnp.zeros((positions, geometry.outputs), y.dtype)
    out = out.at[places].set(y, mode="drop", unique_indices=True)
    return out.reshape(geometry.batch, *geometry.output_size, geometry.outputs)
