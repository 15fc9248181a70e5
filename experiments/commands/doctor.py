"""adaptive-nets doctor: what is here, and what works."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from adaptive_nets.errors import UserError
from experiments import provenance
from experiments.commands.parsing import parse

Finding = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Shows devices, versions, data and kernels, and computes something small on every device."""

    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""


def check_versions() -> Finding:
    """Versions of what can change a number."""
    versions = provenance.package_versions()
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return ("bad" if "absent" in versions.values() else "ok"), text


def check_devices() -> Finding:
    """Every device computes."""
    import jax
    import jax.numpy as jnp

    for device in jax.devices():
        total = float(jnp.sum(jax.device_put(jnp.ones((8, 8)), device)))
        if total != 64.0:
            return "bad", f"{device} computes 8 x 8 = {total:g}"
    kinds = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    count = f"{jax.device_count()} of kind {kinds}, platform {jax.default_backend()}"
    return "ok", f"{count}, {os.cpu_count()} processor cores"


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


def main(arguments: Sequence[str]) -> None:
    """Prints what was found; exit code 2 if something is wrong."""
    options = parse(Doctor, arguments, program="adaptive-nets doctor")
    checks: dict[str, Callable[[], Finding]] = {
        "versions": check_versions,
        "devices": check_devices,
        "kernels": check_kernels,
        "tensorflow": check_tensorflow,
        "data": lambda: check_data(options.data_dir),
    }
    styles = {"ok": "green", "none": "dim", "bad": "red"}
    console = Console(highlight=False, soft_wrap=True)
    failed = []
    for name, check in checks.items():
        try:
            state, text = check()
        except UserError as error:
            state, text = "bad", str(error)
        if state == "bad":
            failed.append(f"{name}: {text}")
        console.print(f"[{styles[state]}]{state:<5}[/]{name:<12}", end="")
        console.print(text, markup=False)
    if failed:
        raise UserError(failed[0])
    print("next: adaptive-nets list")
