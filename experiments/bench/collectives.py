"""Collectives of one training step, read from the compiled program."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.training.batches import labelled_image_shapes
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.mesh import DATA, MODEL, batch_sharding, replicated
from adaptive_nets.training.program import Program, make_program
from adaptive_nets.training.task import Task

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_INSTRUCTION = re.compile(
    rf"^\s*(?:ROOT )?%?(?P<name>\S+) = (?P<shape>.*?) (?P<kind>{'|'.join(KINDS)})(?:-start)?\("
)
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_BITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of the step.

    Attributes:
        kind: One of `KINDS`.
        bytes: Size of its result on one device, bytes.
        arrays: Number of arrays that it combines.
        source: Operation of the network that it belongs to, from XLA's metadata; may be empty.
    """

    kind: str
    bytes: int
    arrays: int
    source: str


@dataclasses.dataclass(frozen=True)
class Report:
    """Communication of one step.

    Attributes:
        mesh: Devices by axis.
        collectives: All collectives.
        parameters: Size of all trainable parameters, bytes.
        divided: Size of the parameters that are sharded over the data axis, bytes.
        minimum: Least bytes by kind for this sharding, see `minimum`; None if there is no formula.
    """

    mesh: dict[str, int]
    collectives: tuple[Collective, ...]
    parameters: int
    divided: int
    minimum: Mapping[str, int] | None

    def total(self, kind: str) -> int:
        """Returns the bytes of one kind of collective."""
        return sum(c.bytes for c in self.collectives if c.kind == kind)


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(_BITS.findall(dtype)[0])
    return math.prod(int(n) for n in dims.split(",") if n) * bits // 8


def read_collectives(hlo: str) -> tuple[Collective, ...]:
    """Parses the collectives of a compiled program; the body of a loop counts once."""
    found = []
    for line in hlo.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        shapes = _SHAPE.findall(match["shape"])
        if "-start(" in line and match["kind"] != "all-reduce":
            # The result of an asynchronous start holds its operands and its results.
            shapes = shapes[len(shapes) // 2 :]
        source = re.search(r'op_name="([^"]*)"', line)
        found.append(
            Collective(
                match["kind"],
                sum(_bytes(*shape) for shape in shapes),
                len(shapes),
                source[1] if source else "",
            )
        )
    return tuple(found)


def minimum(parameters: int, divided: int, mesh: Mapping[str, int]) -> Mapping[str, int] | None:
    """Returns the least bytes by kind that a step communicates to each device.

    Gradients of replicated parameters are all-reduced once. Sharded parameters are all-gathered,
    and their gradients are reduce-scattered. With a model axis the result is None: its devices
    exchange activations, whose size depends on the layers.

    Args:
        parameters: Size of all trainable parameters, bytes.
        divided: Size of the parameters that are sharded over the data axis, bytes.
        mesh: Devices by axis.
    """
    if mesh[MODEL] > 1:
        return None
    if mesh[DATA] == 1:
        return {}
    least = {"all-reduce": parameters - divided}
    if divided:
        least |= {"all-gather": divided, "reduce-scatter": divided // mesh[DATA]}
    return least


def lower_step(program: Program, batch_size: int, image_shape: tuple[int, int, int]) -> Any:
    """Lowers one step on a batch that is sharded over the data axis."""
    divided, copied = batch_sharding(program.mesh), replicated(program.mesh)

    def shaped(shape, dtype, sharding):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    channels = image_shape[-1]
    arrays: Any = {
        name: shaped((batch_size, *row.shape), row.dtype, divided)
        for name, row in labelled_image_shapes(image_shape).items()
    }
    batch = DeviceSplit(
        arrays,
        shaped((1, 1, channels), jnp.float32, copied),
        shaped((1, 1, channels), jnp.float32, copied),
        shaped((), jnp.float32, copied),
    )
    step = jax.jit(program.train_step, donate_argnums=0, out_shardings=program.shardings)
    return step.trace(program.abstract_state, batch)


def step_of(config: TrainConfig, mesh: jax.sharding.Mesh, task: Task | None = None) -> Program:
    """Builds the training program of a network on given devices, without data.

    Args:
        config: Model, optimiser, batch size and mesh.
        mesh: Mesh of the devices.
        task: Network and objective; None for cross-entropy of the network that `config` names.
    """
    shape = model_entry(config.model.name).input_shape
    if task is None:
        model = create_model(config.model.name, dtype=jnp.dtype(config.model.dtype))
        task = classification_task(model)
    return make_program(
        task,
        config,
        mesh=mesh,
        examples=max(config.data.batch_size, 1000),
        rows=labelled_image_shapes(shape),
        streamed=True,
    )


def report(config: TrainConfig, mesh: jax.sharding.Mesh) -> Report:
    """Compiles a step for the devices of a mesh and lists its communication."""
    program = step_of(config, mesh)
    shape = model_entry(config.model.name).input_shape
    size = (shape[0], shape[1], shape[2])
    compiled = lower_step(program, config.data.batch_size, size).lower().compile()
    leaves = jax.tree.leaves(program.abstract_state.params)
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    divided = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if DATA in leaf.sharding.spec)
    axes = {name: int(size) for name, size in mesh.shape.items()}
    return Report(
        mesh=axes,
        collectives=read_collectives(compiled.as_text()),
        parameters=parameters,
        divided=divided,
        minimum=minimum(parameters, divided, axes),
    )
