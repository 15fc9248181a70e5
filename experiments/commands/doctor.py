"""adaptive-nets doctor: checks of devices, versions, data and kernels."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DistributedConfig
from experiments.commands.layout import Column, wrap
from experiments.commands.output import console, hint, is_terminal, show_listing, terminal_width
from experiments.commands.parsing import parse, print_error
from experiments.suite import provenance

Finding = tuple[str, str]
STYLES = {"ok": "green", "none": "dim", "bad": "red"}
COLUMNS = (Column("check"), Column("state"), Column("process"), Column("finding"))
EXAMPLES = ("adaptive-nets doctor", "adaptive-nets doctor --json")


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Shows devices, versions, data and kernels, and computes something small on every device.

    With several processes, each checks its own devices, and all of them an all-reduce.
    """

    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Several processes, started by a scheduler or by hand."""
    json: bool = False
    """Print JSON instead of lines."""


def check_versions() -> Finding:
    """Lists versions of the packages that can change a number."""
    versions = provenance.package_versions()
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return ("bad" if "absent" in versions.values() else "ok"), text


def check_devices() -> Finding:
    """Checks a sum on every device of this process."""
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
    """Checks an all-reduce over every device of every process."""
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
    text = (
        f"{jax.process_count()} with {jax.device_count()} devices; their all-reduce gives {total:g}"
    )
    return ("ok" if total == jax.device_count() else "bad"), text


def check_kernels() -> Finding:
    """Lists for each operation the implementations that run here, and what the others need."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rooms = {
        name: importlib.import_module(f"kernels.{name}")
        for name in ("masked_conv", "perforated_conv", "masked_unit")
    }
    x = jax.ShapeDtypeStruct((1, 16, 16, 64), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.bfloat16)
    mask = jax.ShapeDtypeStruct((1, 16, 16), jnp.bool_)
    static_mask = np.indices((16, 16)).sum(axis=0) % 2 == 0
    arguments = {
        "masked_conv": (x, w, mask),
        "perforated_conv": (x, w, static_mask),
        "masked_unit": (x, mask, (w, w)),
    }
    lines, needs = [], {}
    for operation, room in rooms.items():
        here = []
        for name in room.IMPLEMENTATIONS:
            try:
                room.choose(*arguments[operation], implementation=name)
            except NotImplementedError as error:
                needs[str(error)] = None  # A kernel of two operations has the same need twice.
            else:
                here.append(name)
        lines.append(f"{operation}: {', '.join(here)}")
    return "ok", "; ".join([*lines, *needs])


def check_tensorflow() -> Finding:
    """Checks that TensorFlow is not imported."""
    here = importlib.util.find_spec("tensorflow") is not None
    used = "tensorflow" in sys.modules
    return ("bad", "imported") if used else ("ok", "installed, not used" if here else "absent")


def check_data(root: Path | None) -> Finding:
    """Lists the data sets that are there."""
    from adaptive_nets.data import data_root, survey

    found = [f for f in survey(root) if f.state == "ok"]
    names = ", ".join(f"{f.name} ({f.source})" for f in found) or "none"
    return ("ok" if found else "bad"), f"{data_root(root)}: {names}"


def examine(data_dir: Path | None) -> list[tuple[str, str, str]]:
    """Runs every check in this process; returns name, state and text of each."""
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
    """Prints the findings; exit code 2 if a check fails."""
    options = parse(Doctor, arguments, program="adaptive-nets doctor", examples=EXAMPLES)
    from adaptive_nets.training import distributed

    command = shlex.join(["adaptive-nets", "doctor", *arguments])
    with distributed.process_group(options.distributed, print_error, command=command):
        everywhere = [
            json.loads(text)
            for text in distributed.allgather_text(json.dumps(examine(options.data_dir)))
        ]
        first = distributed.is_process_0()
    rows = []
    for entries in zip(*everywhere, strict=True):
        # An identical finding of all processes is listed once.
        same = all(entry == entries[0] for entry in entries)
        for process, (name, state, text) in enumerate(entries[:1] if same else entries):
            where = None if same else process
            rows.append({"check": name, "state": state, "process": where, "finding": text})
    failed = [row for row in rows if row["state"] == "bad"]
    if not first:
        if failed:
            raise SystemExit(2)
        return
    _show(rows, as_json=options.json)
    if failed:
        worst = failed[0]
        who = "" if worst["process"] is None else f"process {worst['process']}: "
        raise UserError(f"{worst['check']}: {who}{worst['finding']}")
    if not options.json:
        hint("adaptive-nets list")


def _show(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json or not is_terminal():
        show_listing(COLUMNS, rows, as_json=as_json)
        return
    # Findings are sentences: a terminal wraps them instead of cutting columns.
    screen, indent = console(), " " * 17
    for row in rows:
        who = "" if row["process"] is None else f"process {row['process']}: "
        lines = wrap(f"{who}{row['finding']}", terminal_width(), indent)
        screen.print(f"{row['state']:<5}", style=STYLES[row["state"]], end="")
        screen.print(f"{row['check']:<12}{lines[0].strip()}", soft_wrap=True)
        for line in lines[1:]:
            screen.print(line, soft_wrap=True)
