"""Provenance of a measurement: code, packages, devices, load of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "adaptive-nets",
)


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> dict[str, Any]:
    """Returns commit and dirty flag of the code; None for both outside a checkout.

    Changed records and documents do not make the code dirty.
    """
    head = _git("rev-parse", "HEAD")
    if head is None:
        return {"commit": None, "dirty": None}
    changes = _git("status", "--porcelain", "--", ":/", ":!/experiments/results", ":!/docs")
    return {"commit": head, "dirty": bool(changes)}


def devices() -> dict[str, Any]:
    """Returns kind and number of the devices that JAX uses, and the number of CPU cores."""
    import jax

    return {
        "platform": jax.default_backend(),
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "cpu_cores": os.cpu_count(),
    }


def load() -> tuple[float, ...]:
    """Returns the load averages of the machine over one and five minutes; () if unknown."""
    try:
        return tuple(round(value, 2) for value in os.getloadavg()[:2])
    except OSError:
        return ()


def governor() -> str | None:
    """Returns the frequency governor of the first CPU core; None if unknown."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
