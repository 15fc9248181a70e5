"""Devices in a grid, and which axis of which array goes where.

Batches are divided over the axis ``data``. Large kernels may be divided over the axis ``model`` by
output channel; everything else is copied. The compiler inserts the communication.
"""

from __future__ import annotations

import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adaptive_nets.errors import UserError
from adaptive_nets.training.config import MeshConfig

DATA, MODEL = "data", "model"

# Leaves with output channels last, wherever they stand: parameters, averages, optimiser moments.
_CHANNELS_LAST = re.compile(r"(^|/)(kernel|log_sigma2)$")


def make_mesh(config: MeshConfig) -> Mesh:
    """Arranges all devices as (data, model).

    Raises:
        UserError: the number of devices is not a multiple of `config.model`.
    """
    devices = jax.device_count()
    if devices % config.model:
        raise UserError(
            f"--mesh.model is {config.model}; expected a divisor of the {devices} devices here"
        )
    # Axis types are named because the default is explicit sharding, under which a plain loss does
    # not trace.
    return jax.make_mesh(
        (devices // config.model, config.model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2
    )


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


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as 'params/fc1/kernel'; attributes, keys and indices alike."""
    return "/".join(
        str(next(getattr(part, name) for name in ("key", "name", "idx") if hasattr(part, name)))
        for part in path
    )


def state_shardings(mesh: Mesh, abstract_state: Any, *, shard_from: int) -> Any:
    """Sharding of every leaf of a training state, chosen from its name and shape before it exists.

    Args:
        mesh: the grid of devices.
        abstract_state: tree of shapes, as `jax.eval_shape` returns it.
        shard_from: smallest number of elements that is worth dividing.

    Returns:
        A tree of `NamedSharding`: kernels of at least `shard_from` elements whose output channels
            divide over
        the model axis are divided, everything else is copied.
    """
    parts = mesh.shape[MODEL]

    def choose(path, leaf) -> NamedSharding:
        divisible = leaf.ndim >= 2 and leaf.size >= shard_from and leaf.shape[-1] % parts == 0
        if parts > 1 and divisible and _CHANNELS_LAST.search(path_name(path)):
            return NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), MODEL))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(choose, abstract_state)
