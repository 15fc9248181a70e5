"""Differentiable wrapper of the Pallas kernels: forward pass in Pallas, gradients in XLA."""

from __future__ import annotations

import functools
import importlib

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from kernels._common.geometry import Geometry
from kernels._common.requirements import require_kernel
from kernels.masked_conv.active import list_active
from kernels.masked_conv.xla import active_gradients, dense


def bind(name: str, x, w, mask, geometry: Geometry, capacity: int | None):
    """Returns a function (x, w, mask) -> output that runs the kernel `name`.

    Raises:
        NotImplementedError: the kernel does not support the inputs or the device.
    """
    require_kernel(name, x, geometry)
    positions = geometry.batch * geometry.positions
    room = positions if capacity is None else min(capacity, positions)

    def compute(x, w, mask):
        if room == positions:
            return _sparse(x, w, mask, name, geometry, room)
        return lax.cond(
            jnp.sum(mask, dtype=jnp.int32) > room,
            lambda: dense(x, w, mask, geometry),
            lambda: _sparse(x, w, mask, name, geometry, room),
        )

    # Tracing now raises the kernel's own limits while dispatch can still fall back.
    jax.eval_shape(compute, x, w, mask)
    return compute


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _sparse(x: Array, w: Array, mask: Array, name: str, geometry: Geometry, room: int) -> Array:
    module = importlib.import_module(f"kernels.masked_conv.{name}")
    active = list_active(mask, capacity=room)
    y = module.forward(x, w, active.rows, active.count, geometry)
    positions = geometry.batch * geometry.positions
    valid = jnp.arange(room, dtype=jnp.int32) < active.count
    places = jnp.where(valid, active.rows, jnp.int32(positions))
    out = jnp.zeros((positions, geometry.outputs), y.dtype)
    out = out.at[places].set(y, mode="drop", unique_indices=True)
    return out.reshape(geometry.batch, *geometry.output_size, geometry.outputs)


def _forward(x, w, mask, name, geometry, room):
    return _sparse(x, w, mask, name, geometry, room), (x, w, mask)


def _backward(name, geometry, room, residuals, cotangents):
    del name, room
    x, w, mask = residuals
    d_x, d_w = active_gradients(x, w, list_active(mask), cotangents, geometry)
    return d_x, d_w, None


_sparse.defvjp(_forward, _backward)
