"""Ahead-of-time compilation of every kernel: `python -m kernels.aot --out FILE.json`.

Unlike interpretation, compilation shows whether a device compiler accepts a kernel and how many
registers and how much shared memory or VMEM it uses. No device is needed, only the wheels libtpu,
jax-cuda13-plugin and jax-cuda13-pjrt that match the JAX version; `make compile-kernels` creates an
environment with them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.metadata
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
)

from kernels._common.geometry import Geometry, make_geometry
from kernels._common.nvidia_h100 import TARGET_CONFIG
from kernels._common.tiling import HEURISTICS, Problem, choose_tile

BATCH = 32
DTYPES = ("bfloat16", "float32")
OPS = ("perforated_conv", "masked_conv")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Compilation target.

    Attributes:
        name: name in the record and on the command line.
        platform: "cuda" or "tpu".
        device_kind: `device_kind` of its devices.
        cores: number of multiprocessors of a GPU, or of TensorCores of a TPU chip.
        topology: arguments of `jax.experimental.topologies.get_topology_desc`.
        implementations: kernel implementations for the target.
    """

    name: str
    platform: str
    device_kind: str
    cores: int
    topology: tuple[tuple[str, str], ...]
    implementations: tuple[str, ...]


MACHINES = (
    Machine(
        "h100",
        "cuda",
        "NVIDIA H100 80GB HBM3",
        132,
        (("target_config", TARGET_CONFIG), ("topology", "1x1x1")),
        ("pallas_triton", "mosaic_gpu"),
    ),
    Machine("v5e", "tpu", "TPU v5 lite", 1, (("topology_name", "v5e:2x2"),), ("mosaic_tpu",)),
    Machine("v6e", "tpu", "TPU v6 lite", 1, (("topology_name", "v6e:2x2"),), ("mosaic_tpu",)),
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """Convolution of a known network, stride 1, "SAME" padding."""

    name: str
    size: int
    channels: int
    outputs: int
    window: int


LAYERS = (
    Layer("resnet101.conv3.1x1-reduce", 28, 512, 128, 1),
    Layer("resnet101.conv3.3x3", 28, 128, 128, 3),
    Layer("resnet101.conv3.1x1-expand", 28, 128, 512, 1),
    Layer("resnet101.conv4.1x1-reduce", 14, 1024, 256, 1),
    Layer("resnet101.conv4.3x3", 14, 256, 256, 3),
    Layer("resnet101.conv4.1x1-expand", 14, 256, 1024, 1),
    Layer("vgg16.conv3_2", 56, 256, 256, 3),
)


def main(arguments: list[str] | None = None) -> int:
    """Compiles kernels, prints a line per kernel and writes the record.

    Returns:
        1 if a kernel does not compile or none was selected, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m kernels.aot", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON record to write")
    parser.add_argument(
        "--machine", action="append", choices=[m.name for m in MACHINES], help="default: all"
    )
    parser.add_argument("--layer", default="", help="only layers whose name contains this text")
    options = parser.parse_args(arguments)
    _set_environment()
    entries = []
    layers = [layer for layer in LAYERS if options.layer in layer.name]
    for machine in MACHINES:
        if options.machine and machine.name not in options.machine:
            continue
        lower = _compiler(machine)
        for name, layer, dtype, op in itertools.product(
            machine.implementations, layers, DTYPES, OPS
        ):
            entries.append(_compile_entry(lower, machine, name, layer, dtype, op))
            print(_line(entries[-1]), flush=True)
    failures = sum("error" in entry for entry in entries)
    refused = sum("refused" in entry for entry in entries)
    tried = len(entries) - refused
    print(f"{tried - failures} of {tried} compiled, {refused} unsupported by their kernel")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"versions": _versions(), "batch": BATCH, "kernels": entries}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if failures or not entries else 0


def _set_environment() -> None:
    # Must precede the initialisation of any backend.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    # XLA then logs the register counts of ptxas, if ptxas is on the PATH.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    os.environ["TF_CPP_VMODULE"] = "subprocess_compilation=5"
    jax.config.update("jax_platforms", "cpu")


def _compiler(machine: Machine) -> Callable[..., Any]:
    """Returns a function (f, *shapes) -> lowered program for the machine's abstract device."""
    topology = topologies.get_topology_desc(platform=machine.platform, **dict(machine.topology))
    mesh = Mesh(np.array(topology.devices[:1]), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec())
    abstract = AbstractMesh(
        (1,),
        ("x",),
        axis_types=(AxisType.Auto,),
        abstract_device=AbstractDevice(
            device_kind=machine.device_kind,
            num_cores=machine.cores,
            platform="gpu" if machine.platform == "cuda" else machine.platform,
        ),
    )

    def lower(f, *shapes):
        placed = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in shapes]
        with jax.sharding.use_abstract_mesh(abstract):
            return (
                jax.jit(f, out_shardings=sharding)
                .trace(*placed)
                .lower(lowering_platforms=(machine.platform,))
            )

    return lower


def _compile_entry(
    lower, machine: Machine, implementation: str, layer: Layer, dtype: str, op: str
) -> dict[str, Any]:
    """Compiles one kernel; returns its record with figures, or with the error."""
    x = jax.ShapeDtypeStruct((BATCH, layer.size, layer.size, layer.channels), dtype)
    w = jax.ShapeDtypeStruct((layer.window, layer.window, layer.channels, layer.outputs), dtype)
    geometry = make_geometry(x, w, strides=(1, 1), padding="SAME", groups=1)
    f, shapes, rows = _kernel(op, implementation, x, w, geometry)
    tile = None
    if implementation in HEURISTICS:
        tile = choose_tile(
            Problem(dtype, rows, geometry.taps, layer.channels, layer.outputs),
            op=op,
            implementation=implementation,
            device_kind=machine.device_kind,
            tile=None,
        )
    entry: dict[str, Any] = {
        "machine": machine.name,
        "device_kind": machine.device_kind,
        "implementation": implementation,
        "op": op,
        "layer": layer.name,
        "x": list(x.shape),
        "w": list(w.shape),
        "rows": rows,
        "dtype": dtype,
        "tile": None if tile is None else dataclasses.asdict(tile),
    }
    with tempfile.TemporaryDirectory() as dump, _capture_stderr() as log:
        try:
            compiled = lower(f, *shapes).compile({"xla_dump_to": dump} if _is_cuda(machine) else {})
        except NotImplementedError as error:
            return {**entry, "refused": str(error)}
        except Exception as error:
            return {**entry, "error": f"{type(error).__name__}: {error}"[:2000]}
        figures = _cuda_figures(dump, log) if _is_cuda(machine) else _tpu_figures(compiled)
    if figures.get("spilled_bytes"):
        return {**entry, "error": f"spills {figures['spilled_bytes']} bytes of registers"}
    memory = compiled.memory_analysis()
    figures["temporary_bytes"] = memory.temp_size_in_bytes
    figures["code_bytes"] = memory.generated_code_size_in_bytes
    return {**entry, "figures": figures}


def _is_cuda(machine: Machine) -> bool:
    return machine.platform == "cuda"


def _kernel(op: str, implementation: str, x, w, geometry: Geometry):
    """Returns (function, argument shapes, number of rows) of a kernel.

    A perforated convolution keeps half of the positions; a masked one lists all, up to a count.
    """
    module = importlib.import_module(f"kernels.{op}.{implementation}")
    bias = jax.ShapeDtypeStruct((geometry.outputs,), x.dtype)
    if op == "perforated_conv":
        positions = np.arange(0, geometry.positions, 2, dtype=np.int32)

        def perforated(x, w, bias):
            return module.forward(x, w, positions, geometry, bias=bias)

        return perforated, (x, w, bias), geometry.batch * positions.size

    def masked(x, w, bias, rows, count, residual):
        return module.forward(
            x, w, rows, count, geometry, bias=bias, activation="relu", residual=residual
        )

    size = geometry.batch * geometry.positions
    rows = jax.ShapeDtypeStruct((size,), jnp.int32)
    residual = jax.ShapeDtypeStruct((size, geometry.outputs), x.dtype)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return masked, (x, w, bias, rows, count, residual), size


@contextlib.contextmanager
def _capture_stderr() -> Iterator[Any]:
    """Redirects the process's standard error, including that of compilers, to a file."""
    original = os.dup(2)
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(original, 2)
            os.close(original)


def _cuda_figures(dump: str, log) -> dict[str, Any]:
    """Parses shared memory and grid from XLA's dump, registers from ptxas' log; None if absent."""
    figures: dict[str, Any] = dict.fromkeys(
        ("shared_memory_bytes", "programs", "threads", "registers", "spilled_bytes")
    )
    for path in Path(dump).glob("*thunk_sequence.txt"):
        found = re.search(
            r"gather_conv grid: \[([\d, ]+)\] threads: \[(\d+).*shared_memory: (\d+)",
            path.read_text(),
        )
        if found:
            figures["programs"] = int(np.prod([int(n) for n in found[1].split(",")]))
            figures["threads"] = int(found[2])
            figures["shared_memory_bytes"] = int(found[3])
    log.seek(0)
    found = re.search(
        r"properties for (?:gather_conv|\w*mosaic_gpu\w*)\n"
        r".*?(\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r".*?Used (\d+) registers",
        log.read().decode(errors="replace"),
    )
    if found:
        figures["spilled_bytes"] = int(found[1]) + int(found[2])
        figures["registers"] = int(found[3])
    return figures


def _tpu_figures(compiled) -> dict[str, Any]:
    """Parses the VMEM size of the kernel's buffers from the compiled program; None if absent."""
    found = re.search(
        r'^ *(?:ROOT )?%gather_conv.*"used_scoped_memory_configs":\[\{"memory_space":"1",'
        r'"offset":"\d+","size":"(\d+)"',
        compiled.as_text(),
        re.MULTILINE,
    )
    return {"vmem_bytes": int(found[1]) if found else None}


def _versions() -> dict[str, str | None]:
    names = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "jax-cuda13-pjrt")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _line(entry: dict[str, Any]) -> str:
    label = (
        f"{entry['machine']:5} {entry['implementation']:13} {entry['op']:15} "
        f"{entry['layer']:27} {entry['dtype']:8}"
    )
    if "refused" in entry:
        return f"{label} unsupported: {entry['refused']}"
    if "error" in entry:
        return f"{label} FAILED {entry['error'].splitlines()[0][:200]}"
    figures = {name: value for name, value in entry["figures"].items() if value is not None}
    return f"{label} " + ", ".join(f"{name} {value}" for name, value in figures.items())


if __name__ == "__main__":
    sys.exit(main())
