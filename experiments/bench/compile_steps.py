"""Compiles whole training steps for accelerators; `make compile-steps` runs it.

`make compile-steps` creates an environment with the compilers and runs this module in it; no
accelerator is needed. The record holds the results of the compilers: whether they accept the step,
its memory per device and its collectives.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from adaptive_nets.models import create_model
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimiserConfig,
    TrainConfig,
)
from adaptive_nets.training.depth import adaptive_depth
from adaptive_nets.training.mesh import make_mesh
from adaptive_nets.training.task import Task
from experiments.bench.collectives import lower_step, minimum, read_collectives, step_of
from kernels._common.nvidia_h100 import TARGET_CONFIG

NETWORKS = ("resnet50", "resnet50_sact")
SIZE = (224, 224, 3)
TAU = 0.001  # Weight of the ponder cost; its value does not change the program.


@dataclasses.dataclass(frozen=True)
class Machine:
    """Four devices to compile for.

    Attributes:
        name: Name in the record and on the command line.
        platform: "cuda" or "tpu".
        topology: Arguments of `jax.experimental.topologies.get_topology_desc`.
        batch: Images per device and step.
    """

    name: str
    platform: str
    topology: tuple[tuple[str, str], ...]
    batch: int


MACHINES = (
    Machine("v5e-2x2", "tpu", (("topology_name", "v5e:2x2"),), 64),
    Machine("h100-4", "cuda", (("target_config", TARGET_CONFIG), ("topology", "1x1x4")), 64),
)


def compile_step(machine: Machine, network: str, mesh: MeshConfig) -> dict[str, Any]:
    """Compiles one step and returns its memory and collectives, or the error."""
    topology = topologies.get_topology_desc(platform=machine.platform, **dict(machine.topology))
    devices = make_mesh(mesh, topology.devices)
    size = machine.batch * devices.size
    config = TrainConfig(
        data=DataConfig(name="imagenet", batch_size=size, eval_batch_size=size, standardise=True),
        model=ModelConfig(name=network, dtype="bfloat16"),
        optimiser=OptimiserConfig(name="sgd", learning_rate=0.1, weight_decay=1e-4),
        mesh=mesh,
    )
    entry: dict[str, Any] = {
        "machine": machine.name,
        "device_kind": topology.devices[0].device_kind,
        "devices": devices.size,
        "mesh": {name: int(n) for name, n in devices.shape.items()},
        "shard_parameters": mesh.shard_parameters,
        "network": network,
        "batch": size,
        "dtype": config.model.dtype,
    }
    began = time.monotonic()
    try:
        program = step_of(config, devices, _task(network))
        lowered = lower_step(program, size, SIZE).lower(lowering_platforms=(machine.platform,))
        compiled = lowered.compile()
    except Exception as error:
        return {**entry, "error": f"{type(error).__name__}: {error}"[:2000]}
    memory = compiled.memory_analysis()
    leaves = jax.tree.leaves(program.abstract_state.params)
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    totals: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for each in read_collectives(compiled.as_text()):
        totals[each.kind]["count"] += 1
        totals[each.kind]["bytes"] += each.bytes
    return {
        **entry,
        "seconds": round(time.monotonic() - began, 1),
        "parameter_bytes": parameters,
        "memory_per_device": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "shared_with_arguments": memory.alias_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "collectives": dict(totals),
        "minimum": minimum(parameters, 0, entry["mesh"]),
    }


def _task(network: str) -> Task:
    """Returns the task of a network; the loss of a halting network includes the ponder cost."""
    model = create_model(network, dtype=jnp.bfloat16)
    if network.endswith(("_act", "_sact")):
        objective = adaptive_depth(lambda step: jnp.float32(TAU))
        return classification_task(model, lambda timing: objective)
    return classification_task(model)


def main(arguments: list[str] | None = None) -> int:
    """Compiles the steps, prints a line for each and writes the record.

    Returns:
        0; 1 if a step does not compile or none was selected.
    """
    parser = argparse.ArgumentParser(prog="compile_steps", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON record to write")
    parser.add_argument(
        "--machine", action="append", choices=[m.name for m in MACHINES],
        help="accelerators to compile for; default: all",
    )  # fmt: skip
    parser.add_argument("--network", action="append", help="network to compile; default: all")
    options = parser.parse_args(arguments)
    # JAX reads these when it starts a backend.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
    )
    jax.config.update("jax_platforms", "cpu")
    entries = []
    for machine in MACHINES:
        if options.machine and machine.name not in options.machine:
            continue
        for network in options.network or NETWORKS:
            entries.append(compile_step(machine, network, MeshConfig()))
            print(_line(entries[-1]), flush=True)
    if options.out:
        from experiments.suite import provenance

        versions = provenance.package_versions()
        record = {"versions": versions, "code": provenance.commit(), "steps": entries}
        write_json_atomically(options.out, record)
    return 1 if not entries or any("error" in entry for entry in entries) else 0


def _line(entry: dict[str, Any]) -> str:
    step = f"{entry['machine']:8} {entry['network']:14} batch {entry['batch']}"
    if "error" in entry:
        return f"{step} FAILED {entry['error'].splitlines()[0][:300]}"
    memory = entry["memory_per_device"]
    used = memory["arguments"] + memory["outputs"] - memory["shared_with_arguments"]
    used += memory["temporary"]
    total = ", ".join(f"{v['bytes']:,} bytes {k}" for k, v in entry["collectives"].items())
    return f"{step} {used / 2**30:.2f} GiB per device, {total}, {entry['seconds']} s"


if __name__ == "__main__":
    sys.exit(main())
