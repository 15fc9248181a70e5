"""Devices in a grid, and which axis of which array goes where.

Batches are divided over the axis ``data``. Large kernels may be divided over the axis ``model`` by
output channel, and all large arrays of the state over the axis ``data``; everything else is copied.
The compiler inserts the communication.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import path_name
from adaptive_nets.training.config import MeshConfig

DATA, MODEL = "data", "model"

# Leaves with output channels last, wherever they stand: parameters, averages, optimiser moments.
_CHANNELS_LAST = re.compile(r"(^|/)(kernel|log_sigma2)$")


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges all devices of all processes as (data, model).

    Args:
        config: how many of which.
        devices: other devices than those that are here.

    Raises:
        UserError: the number of devices is not what the configuration needs.
    """
    count = jax.device_count() if devices is None else len(devices)
    if count % config.model:
        raise UserError(
            f"--mesh.model is {config.model}; expected a divisor of the {count} devices here"
        )
    rest = count // config.model
    if config.data not in (0, rest):
        raise UserError(
            f"--mesh.data is {config.data}; expected {rest}, since there are {count} devices and "
            f"--mesh.model is {config.model}"
        )
    # Axis types are named because the default is explicit sharding, under which a plain loss does
    # not trace.
    axis_types = (AxisType.Auto,) * 2
    return jax.make_mesh((rest, config.model), (DATA, MODEL), axis_types, devices=devices)


def check_batch(mesh: Mesh, batch_size: int, *, flag: str) -> None:
    """Raises `UserError` unless a batch divides evenly over the data axis."""
    parts = mesh.shape[DATA]
    if batch_size % parts:
        raise UserError(
            f"--{flag} is {batch_size}, which does not divide over {parts} devices; "
            f"expected a multiple of {parts}"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples divided over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(
    mesh: Mesh, abstract_state: Any, *, shard_from: int, shard_parameters: bool = False
) -> Any:
    """Sharding of every leaf of a training state, chosen from its name and shape before it exists.

    Args:
        mesh: the grid of devices.
        abstract_state: tree of shapes, as `jax.eval_shape` returns it.
        shard_from: smallest number of elements that is worth dividing.
        shard_parameters: divide over the data axis too. A layer is then put together where and when
            it is used, and its gradient is added up where its part lives.

    Returns:
        A tree of `NamedSharding`: kernels of at least `shard_from` elements whose output channels
            divide over the model axis are divided there; with `shard_parameters`, the largest other
            axis that divides is divided over the data axis; everything else is copied.
    """
    channels, batch = mesh.shape[MODEL], mesh.shape[DATA]

    def choose(path, leaf) -> NamedSharding:
        axes: list[str | None] = [None] * leaf.ndim
        if leaf.size >= shard_from:
            named = _CHANNELS_LAST.search(path_name(path)) and leaf.ndim >= 2
            if channels > 1 and named and leaf.shape[-1] % channels == 0:
                axes[-1] = MODEL
            if shard_parameters and batch > 1:
                free = [
                    axis
                    for axis, size in enumerate(leaf.shape)
                    if axes[axis] is None and size and size % batch == 0
                ]
                if free:
                    axes[max(free, key=lambda axis: leaf.shape[axis])] = DATA
        return NamedSharding(mesh, PartitionSpec(*axes)) if any(axes) else replicated(mesh)

    return jax.tree_util.tree_map_with_path(choose, abstract_state)
