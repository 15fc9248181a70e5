"""What the devices tell each other in one training step, read from the compiled program."""

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
from adaptive_nets.training.setup import Program, make_program
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
    """One communication of the step.

    Attributes:
        kind: one of `KINDS`.
        bytes: of what comes out of it on one device.
        arrays: how many arrays it carries at once.
        source: the operation of the network that it is for, as far as XLA says.
    """

    kind: str
    bytes: int
    arrays: int
    source: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The communication of one step.

    Attributes:
        mesh: devices by axis.
        collectives: all of them.
        parameters: bytes of all trainable parameters.
        divided: bytes of those that are divided over the data axis.
        minimum: least bytes by kind that this way of dividing needs, see `minimum`; None where no
            formula is given.
    """

    mesh: dict[str, int]
    collectives: tuple[Collective, ...]
    parameters: int
    divided: int
    minimum: Mapping[str, int] | None

    def total(self, kind: str) -> int:
        """Bytes of one kind."""
        return sum(c.bytes for c in self.collectives if c.kind == kind)


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(_BITS.findall(dtype)[0])
    return math.prod(int(n) for n in dims.split(",") if n) * bits // 8


def read_collectives(hlo: str) -> tuple[Collective, ...]:
    """Finds the collectives in the text of a compiled program; loops count once."""
    found = []
    for line in hlo.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        shapes = _SHAPE.findall(match["shape"])
        if "-start(" in line and match["kind"] != "all-reduce":
            # Its result holds what went in and what comes out.
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
    """Least bytes that a step has to bring to each device, by kind.

    Data parallel: the gradient is added up once, over as many bytes as there are parameters. What
    is divided is put together for use and its gradient is added up where its part lives. None with
    a model axis: what goes between its devices are activations, as many as the layers have.

    Args:
        parameters: bytes of all trainable parameters.
        divided: bytes of those that are divided over the data axis.
        mesh: devices by axis.
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
    """Lowers one step on a batch that lies divided over the data axis."""
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
    """The training step of a network of the zoo on given devices, without data.

    Args:
        config: model, optimiser, batch size and mesh.
        mesh: the devices.
        task: network and objective; cross-entropy of the network that the configuration names where
            not given.
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
