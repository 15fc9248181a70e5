"""adaptive-nets doctor: what is here, and what works."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DistributedConfig
from experiments.commands.parsing import parse, print_error
from experiments.suite import provenance

Finding = tuple[str, str]
STYLES = {"ok": "green", "none": "dim", "bad": "red"}


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Shows devices, versions, data and kernels, and computes something small on every device.

    Started as several processes, it does so in each of them, and in all of them together.
    """

    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Several processes, started by a scheduler or by hand."""


def check_versions() -> Finding:
    """Versions of what can change a number."""
    versions = provenance.package_versions()
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return ("bad" if "absent" in versions.values() else "ok"), text


def check_devices() -> Finding:
    """Every device of this process computes."""
    import jax
    import jax.numpy as jnp

    for device in jax.local_devices():
        total = float(jnp.sum(jax.device_put(jnp.ones((8, 8)), device)))
        if total != 64.0:
            return "bad", f"{device} computes 8 x 8 = {total:g}"
    kinds = ", ".join(sorted({device.device_kind for device in jax.local_devices()}))
    count = f"{jax.local_device_count()} of kind {kinds}, platform {jax.default_backend()}"
    return "ok", f"{count}, {os.cpu_count()} processor cores"


def check_processes() -> Finding:
    """The devices of all processes add up one number for each of them."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from adaptive_nets.training.config import MeshConfig
    from adaptive_nets.training.distributed import put
    from adaptive_nets.training.mesh import batch_sharding, make_mesh, replicated

    if jax.process_count() == 1:
        return "ok", "one"
    mesh = make_mesh(MeshConfig())
    ones = put(np.ones(jax.device_count(), np.float32), batch_sharding(mesh))
    total = float(jax.jit(jnp.sum, out_shardings=replicated(mesh))(ones))
    text = f"{jax.process_count()} with {jax.device_count()} devices, which add up to {total:g}"
    return ("ok" if total == jax.device_count() else "bad"), text


def check_kernels() -> Finding:
    """Implementations of our kernels: which run here, and what the others need."""
    import jax
    import jax.numpy as jnp

    from kernels.masked_conv import IMPLEMENTATIONS, choose

    x = jax.ShapeDtypeStruct((1, 16, 16, 64), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.bfloat16)
    mask = jax.ShapeDtypeStruct((1, 16, 16), jnp.bool_)
    here, missing = [], []
    for name in IMPLEMENTATIONS:
        try:
            choose(x, w, mask, implementation=name)
        except NotImplementedError as error:
            missing.append(str(error))
        else:
            here.append(name)
    return "ok", "; ".join([f"{', '.join(here)} run here", *missing])


def check_tensorflow() -> Finding:
    """TensorFlow is neither needed nor imported."""
    here = importlib.util.find_spec("tensorflow") is not None
    used = "tensorflow" in sys.modules
    return ("bad", "imported") if used else ("ok", "installed, not used" if here else "absent")


def check_data(root: Path | None) -> Finding:
    """Data sets that are there."""
    from adaptive_nets.data import data_root, survey

    found = [f for f in survey(root) if f.state == "ok"]
    names = ", ".join(f"{f.name} ({f.source})" for f in found) or "none"
    return ("ok" if found else "bad"), f"{data_root(root)}: {names}"


def examine(data_dir: Path | None) -> list[tuple[str, str, str]]:
    """Name, state and text of everything that is looked at in this process."""
    checks: dict[str, Callable[[], Finding]] = {
        "versions": check_versions,
        "devices": check_devices,
        "processes": check_processes,
        "kernels": check_kernels,
        "tensorflow": check_tensorflow,
        "data": lambda: check_data(data_dir),
    }
    found = []
    for name, check in checks.items():
        try:
            state, text = check()
        except UserError as error:
            state, text = "bad", str(error)
        found.append((name, state, text))
    return found


def main(arguments: Sequence[str]) -> None:
    """Prints what was found; exit code 2 if something is wrong."""
    options = parse(Doctor, arguments, program="adaptive-nets doctor")
    from adaptive_nets.training import distributed

    with distributed.process_group(options.distributed, print_error):
        everywhere = [
            json.loads(text)
            for text in distributed.allgather_text(json.dumps(examine(options.data_dir)))
        ]
        first = distributed.is_process_0()
    failed = []
    console = Console(highlight=False, soft_wrap=True, quiet=not first)
    for entries in zip(*everywhere, strict=True):
        # What is the same everywhere is said once.
        same = all(entry == entries[0] for entry in entries)
        for process, (name, state, text) in enumerate(entries[:1] if same else entries):
            who = "" if same else f"process {process}: "
            if state == "bad":
                failed.append(f"{name}: {who}{text}")
            console.print(f"[{STYLES[state]}]{state:<5}[/]{name:<12}", end="")
            console.print(f"{who}{text}", markup=False)
    if failed and first:
        raise UserError(failed[0])
    if failed:
        raise SystemExit(2)
    if first:
        print("next: adaptive-nets list")
