"""Mesh of devices, and the shardings of batches and training state.

Batches are sharded over the axis ``data``. Large kernels may be sharded over the axis ``model`` by
output channel, and all large arrays of the state over the axis ``data``. Everything else is
replicated. The compiler inserts the communication.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import path_name
from adaptive_nets.training.batch_size import require_divisible_batch
from adaptive_nets.training.config import MeshConfig

DATA, MODEL = "data", "model"

# Leaves whose last axis is output channels: parameters, their averages and optimiser moments.
_CHANNELS_LAST = re.compile(r"(^|/)(kernel|log_sigma2|log_alpha)$")


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Builds the mesh (data, model) over all devices of all processes.

    Args:
        config: sizes of the axes.
        devices: devices of the mesh; all devices of JAX if None.

    Raises:
        UserError: the configuration does not fit the number of devices.
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
    # JAX's default is explicit sharding, under which a plain cross-entropy does not trace.
    axis_types = (AxisType.Auto,) * 2
    return jax.make_mesh((rest, config.model), (DATA, MODEL), axis_types, devices=devices)


def check_batch(mesh: Mesh, batch_size: int, *, accumulation: int = 1) -> None:
    """Raises a `UserError` unless a training batch divides evenly over the data axis."""
    require_divisible_batch(batch_size, mesh.shape[DATA], accumulation=accumulation)


def eval_batch_size(mesh: Mesh, size: int) -> int:
    """Returns an evaluation batch size, rounded up to a multiple of the data axis.

    Results do not change: what pads the last batch has weight 0.
    """
    parts = mesh.shape[DATA]
    return -(-size // parts) * parts


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of examples over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding with a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(
    mesh: Mesh, abstract_state: Any, *, shard_from: int, shard_parameters: bool = False
) -> Any:
    """Chooses the sharding of every leaf of a training state from its name and shape.

    Args:
        mesh: mesh of devices.
        abstract_state: tree of shapes, as `jax.eval_shape` returns it.
        shard_from: smallest number of elements of a sharded leaf.
        shard_parameters: shard over the data axis too (FSDP): parameters are all-gathered for use,
            gradients are reduce-scattered.

    Returns:
        Tree of `NamedSharding`. Kernels of at least `shard_from` elements are sharded by output
        channel over the model axis if it divides them. With `shard_parameters`, the largest other
        axis that the data axis divides is sharded over it. Everything else is replicated.
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
